//! "Did you mean …?"

/// The candidate most like `word`, if one is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_of(word, candidates).map(|(candidate, _)| candidate)
}

/// The same with how like they are, above 0.75 and at most 1.
pub fn nearest_of<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, f64)> {
    candidates
        .into_iter()
        .map(|candidate| (candidate, likeness(word, candidate)))
        .filter(|(_, likeness)| *likeness > 0.75)
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

/// One slip of the finger is one, even in a word of three letters, which Jaro and Winkler find too short for it.
fn likeness(word: &str, candidate: &str) -> f64 {
    let slip = word.len() > 2 && strsim::osa_distance(word, candidate) == 1;
    strsim::jaro_winkler(word, candidate).max(if slip { 0.8 } else { 0.0 })
}

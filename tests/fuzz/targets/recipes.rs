//! Any bytes as a recipe, any texts as `--set`: a recipe or one clean error, and what is resolved stays as it is.
//!
//! An input is the recipe, then, if a line says `# sets`, one `--set` a line.

use imago_experiments::Recipe;
use std::path::Path;

/// Whether the input is a recipe.
pub fn check(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let (recipe, sets) = text.split_once("\n# sets\n").unwrap_or((&text, ""));
    let sets: Vec<String> = sets.lines().map(String::from).collect();
    let parse = |recipe: &str, sets: &[String]| Recipe::parse("x.toml", recipe, sets, None, &["registered"]);
    let mut resolved = match parse(recipe, &sets) {
        Ok(resolved) => resolved,
        Err(error) => {
            assert!(!format!("{error:#}").trim().is_empty());
            return false;
        }
    };
    resolved.anchor(Path::new("/recipes"));
    let written = resolved.to_toml().expect("a recipe that was read can be written");
    let mut again = parse(&written, &[]).unwrap_or_else(|error| panic!("{error:#} in\n{written}"));
    again.anchor(Path::new("/elsewhere"));
    assert_eq!(resolved, again, "{written}");
    assert_eq!(written, again.to_toml().expect("as before"));
    true
}

//! TensorBoard's event file: every error is returned, nothing panics.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::Message;
use protobuf::well_known_types::Value;
use tensorboard_proto::api::Status;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::plugin_hparams::{HParamsPluginData, SessionEndInfo, SessionStartInfo};
use tensorboard_proto::plugin_text::TextPluginData;
use tensorboard_proto::summary::{
    Summary, Summary_Image, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData,
};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary;

/// Bars of a histogram.
const BINS: usize = 30;

/// One event file.
///
/// After an error it may end in half a record, so a new one must be begun.
pub struct EventFile {
    records: RecordWriter<BufWriter<File>>,
}

impl EventFile {
    /// Begins a new event file in `folder`, which TensorBoard reads after those already there.
    pub fn create(folder: &Path) -> io::Result<Self> {
        // TensorBoard reads the files of a folder in the order of their names.
        let (mut seconds, mut number) = (now() as u64, 0);
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let mut parts =
                name.to_str().unwrap_or_default().strip_prefix(PREFIX).unwrap_or_default().split('.');
            let part = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
            if let (Some(s), Some(n)) = (part(parts.next()), part(parts.next())) {
                // A clock that was set back must not put the new file first.
                seconds = seconds.max(s);
                number = number.max(n + 1);
            }
        }
        let path = folder.join(format!("{PREFIX}{seconds:010}.{number:06}.imago"));
        let file = File::create_new(path)?;
        let mut this = EventFile { records: RecordWriter::new(BufWriter::new(file)) };
        let mut version = Event::new();
        version.set_file_version("brain.Event:2".into());
        this.write(version, 0)?;
        this.flush()?;
        Ok(this)
    }

    /// Says that the run went on from `step`: TensorBoard then forgets what earlier files say
    /// about later steps.
    pub fn resumed_at(&mut self, step: u64) -> io::Result<()> {
        let mut log = SessionLog::new();
        log.set_status(SessionLog_SessionStatus::START);
        let mut event = Event::new();
        event.set_session_log(log);
        // It purges everything at and after the START event's own step; what was logged at
        // `step` itself is part of the checkpoint's past and stays.
        self.write(event, step + 1)
    }

    /// One number.
    pub fn scalar(&mut self, tag: &str, x: f64, step: u64) -> io::Result<()> {
        self.summary(summary::scalar(tag, x as f32), step)
    }

    /// A distribution in equal bars over its range; numbers that are not finite are left out.
    pub fn histogram(&mut self, tag: &str, values: &[f64], step: u64) -> io::Result<()> {
        let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        let Some(&first) = finite.first() else { return Ok(()) };
        let (low, high) = finite.iter().fold((first, first), |(low, high), &x| (low.min(x), high.max(x)));
        // A single value still needs a bar of some width, one that survives rounding.
        let width = ((high / BINS as f64) - (low / BINS as f64)).max(low.abs() * 1e-9).max(1e-12);
        let mut bars = [0.0; BINS];
        for x in &finite {
            bars[(((x - low) / width) as usize).min(BINS - 1)] += 1.0;
        }
        let mut right: Vec<f64> = (1..=BINS).map(|i| low + width * i as f64).collect();
        right[BINS - 1] = right[BINS - 1].max(high);
        let (sum, squares) = finite.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        let count = finite.len() as f64;
        self.summary(summary::histogram_raw(tag, low, high, count, sum, squares, &right, &bars), step)
    }

    /// A text in Markdown.
    pub fn text(&mut self, tag: &str, markdown: &str, step: u64) -> io::Result<()> {
        let mut value = Summary_Value::new();
        value.set_tag(format!("{tag}/text_summary"));
        value.set_metadata(plugin("text", encode(&TextPluginData::new())?));
        value.set_tensor(strings(markdown.as_bytes().to_vec()));
        self.summary(one(value), step)
    }

    /// An image from encoded bytes: PNG, JPEG, or an animated GIF.
    pub fn image(&mut self, tag: &str, width: u32, height: u32, encoded: &[u8], step: u64) -> io::Result<()> {
        let mut image = Summary_Image::new();
        image.set_width(width as i32);
        image.set_height(height as i32);
        image.set_colorspace(3);
        image.set_encoded_image_string(encoded.to_vec());
        let mut value = Summary_Value::new();
        value.set_tag(tag.into());
        value.set_image(image);
        self.summary(one(value), step)
    }

    /// The run's hyperparameters: numbers, texts and flags; anything else is shown as its JSON.
    ///
    /// The experiment message that could list them once for all runs is left out on purpose:
    /// without it TensorBoard infers types and ranges from all runs, with it from one.
    pub fn hyperparameters(&mut self, parameters: &[(String, serde_json::Value)]) -> io::Result<()> {
        let mut start = SessionStartInfo::new();
        let table: HashMap<String, Value> =
            parameters.iter().map(|(name, value)| (name.clone(), parameter(value))).collect();
        start.set_hparams(table);
        start.set_start_time_secs(now());
        let mut data = HParamsPluginData::new();
        data.set_session_start_info(start);
        self.hparams("_hparams_/session_start_info", &data, 0)
    }

    /// That the run whose hyperparameters were given has ended, and how.
    pub fn ended(&mut self, success: bool, step: u64) -> io::Result<()> {
        let mut end = SessionEndInfo::new();
        end.set_status(if success { Status::STATUS_SUCCESS } else { Status::STATUS_FAILURE });
        end.set_end_time_secs(now());
        let mut data = HParamsPluginData::new();
        data.set_session_end_info(end);
        self.hparams("_hparams_/session_end_info", &data, step)
    }

    /// Hands everything to the operating system. Dropping does this too but hides errors.
    pub fn flush(&mut self) -> io::Result<()> {
        self.records.flush()
    }

    fn hparams(&mut self, tag: &str, data: &HParamsPluginData, step: u64) -> io::Result<()> {
        let mut value = Summary_Value::new();
        value.set_tag(tag.into());
        value.set_metadata(plugin("hparams", encode(data)?));
        // The message travels in the metadata; the plugin still wants a tensor, an empty one.
        let mut nothing = TensorProto::new();
        nothing.set_dtype(DataType::DT_FLOAT);
        nothing.set_tensor_shape(vector_shape(0));
        value.set_tensor(nothing);
        self.summary(one(value), step)
    }

    fn summary(&mut self, summary: Summary, step: u64) -> io::Result<()> {
        let mut event = Event::new();
        event.set_summary(summary);
        self.write(event, step)
    }

    fn write(&mut self, mut event: Event, step: u64) -> io::Result<()> {
        event.set_wall_time(now());
        event.set_step(i64::try_from(step).unwrap_or(i64::MAX));
        self.records.write(&encode(&event)?)
    }
}

const PREFIX: &str = "events.out.tfevents.";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn encode(message: &impl Message) -> io::Result<Vec<u8>> {
    message.write_to_bytes().map_err(io::Error::other)
}

fn one(value: Summary_Value) -> Summary {
    let mut summary = Summary::new();
    summary.mut_value().push(value);
    summary
}

fn plugin(name: &str, content: Vec<u8>) -> SummaryMetadata {
    let mut data = SummaryMetadata_PluginData::new();
    data.set_plugin_name(name.into());
    data.set_content(content);
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(data);
    metadata
}

/// A string tensor, a vector of one: what the text plugin wants.
fn strings(content: Vec<u8>) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.set_dtype(DataType::DT_STRING);
    tensor.set_tensor_shape(vector_shape(1));
    tensor.mut_string_val().push(content);
    tensor
}

fn vector_shape(length: i64) -> TensorShapeProto {
    let mut dimension = TensorShapeProto_Dim::new();
    dimension.set_size(length);
    let mut shape = TensorShapeProto::new();
    shape.mut_dim().push(dimension);
    shape
}

fn parameter(json: &serde_json::Value) -> Value {
    let mut value = Value::new();
    match json {
        serde_json::Value::Bool(x) => value.set_bool_value(*x),
        serde_json::Value::Number(x) => value.set_number_value(x.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(x) => value.set_string_value(x.clone()),
        other => value.set_string_value(other.to_string()),
    }
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::run::tests::python;
    use serde_json::json;

    #[test]
    fn tensorboard_reads_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path()).unwrap();
        let parameters =
            [("learner/kind".into(), json!("ppo")), ("lr".into(), json!(0.25)), ("norm".into(), json!(true))];
        events.hyperparameters(&parameters).unwrap();
        events.text("recipe", "| a | b |\n|---|---|", 0).unwrap();
        events.scalar("a", 1.5, 10).unwrap();
        events.scalar("a", 2.5, 20).unwrap();
        events.scalar("a", 99.0, 30).unwrap();
        let values: Vec<f64> = (0..3000).map(|i| f64::from(i) / 100.0).chain([f64::NAN]).collect();
        events.histogram("h", &values, 10).unwrap();
        events.histogram("constant", &[5e8; 4], 10).unwrap();
        events.histogram("extreme", &[f64::MAX, f64::MIN], 10).unwrap();
        events.histogram("nothing", &[], 10).unwrap();
        events.image("i", 1, 1, b"GIF89a", 10).unwrap();
        events.flush().unwrap();
        drop(events);
        // What was said at steps after 20 is taken back, what was said at 20 is not.
        let mut events = EventFile::create(folder.path()).unwrap();
        events.resumed_at(20).unwrap();
        events.scalar("a", 3.5, 30).unwrap();
        events.ended(true, 30).unwrap();
        events.flush().unwrap();
        drop(events);

        let script = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
e = EventAccumulator(sys.argv[1], size_guidance={"tensors": 0, "histograms": 0, "scalars": 0, "images": 0})
e.Reload()
h = e.Histograms("h")[0].histogram_value
data = lambda name: plugin_data_pb2.HParamsPluginData.FromString(e.SummaryMetadata(name).plugin_data.content)
start = data("_hparams_/session_start_info").session_start_info
print(json.dumps({
    "a": [[s.step, s.value] for s in e.Scalars("a")],
    "h": [h.min, h.max, h.num, h.sum, list(h.bucket), h.bucket_limit[0], h.bucket_limit[-1]],
    "constant": sum(e.Histograms("constant")[0].histogram_value.bucket),
    "tags": sorted(e.Tags()["histograms"]),
    "text": e.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode(),
    "text_plugin": e.SummaryMetadata("recipe/text_summary").plugin_data.plugin_name,
    "image": e.Images("i")[0].encoded_image_string.decode(),
    "kind": start.hparams["learner/kind"].string_value,
    "lr": start.hparams["lr"].number_value,
    "norm": start.hparams["norm"].bool_value,
    "status": data("_hparams_/session_end_info").session_end_info.status,
}))"#;
        let Some(found) = python(script, folder.path()) else { return };
        assert_eq!(found["a"], json!([[10, 1.5], [20, 2.5], [30, 3.5]]));
        let h = found["h"].as_array().unwrap();
        assert_eq!((&h[0], &h[1], &h[2]), (&json!(0.0), &json!(29.99), &json!(3000.0)));
        assert!((h[3].as_f64().unwrap() - 44985.0).abs() < 1e-6);
        let bars: Vec<f64> = h[4].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!((bars.len(), bars.iter().sum::<f64>()), (BINS, 3000.0));
        assert!(bars.iter().all(|&bar| (99.0..=102.0).contains(&bar)), "{bars:?}");
        assert!((h[5].as_f64().unwrap() - 29.99 / 30.0).abs() < 1e-9 && h[6].as_f64().unwrap() >= 29.99);
        assert_eq!(found["constant"], json!(4.0));
        assert_eq!(found["tags"], json!(["constant", "extreme", "h"]));
        assert_eq!(found["text"], json!("| a | b |\n|---|---|"));
        assert_eq!(found["text_plugin"], json!("text"));
        assert_eq!(found["image"], json!("GIF89a"));
        assert_eq!((&found["kind"], &found["lr"]), (&json!("ppo"), &json!(0.25)));
        assert_eq!((&found["norm"], &found["status"]), (&json!(true), &json!(1)));
    }

    #[test]
    fn a_later_file_is_read_later_even_if_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(format!("{PREFIX}9999999999.000004.imago")), "").unwrap();
        EventFile::create(folder.path()).unwrap();
        assert!(folder.path().join(format!("{PREFIX}9999999999.000005.imago")).exists());
        assert!(EventFile::create(&folder.path().join("nowhere")).is_err());
    }
}

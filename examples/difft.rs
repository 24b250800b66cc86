#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::print_stdout, clippy::restriction)]
use sense_orchestrator::compose::*;
use serde_json::{Value, json};
use std::io::BufRead;
fn tojson(k: &yaml::Node) -> Value {
    match &k.kind {
        yaml::Kind::Null => Value::Null,
        yaml::Kind::Bool(b) => json!(b),
        yaml::Kind::Int(i) => {
            if let Ok(i) = i64::try_from(*i) {
                json!(i)
            } else {
                json!(*i as u64)
            }
        }
        yaml::Kind::Float(f) => json!(f),
        yaml::Kind::Str(s) | yaml::Kind::Timestamp(s) => json!(s),
        yaml::Kind::Seq(s) => Value::Array(s.iter().map(tojson).collect()),
        yaml::Kind::Map(m) => Value::Object(m.iter().map(|e| (e.key.clone(), tojson(&e.value))).collect()),
    }
}
fn main() {
    for line in std::io::stdin().lock().lines() {
        let v: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let text = v["text"].as_str().unwrap();
        let env = v["env"].as_object().cloned().unwrap_or_default();
        let lookup = |n: &str| env.get(n).and_then(|v| v.as_str()).map(str::to_owned);
        let r: Result<Value, String> = match v["op"].as_str().unwrap() {
            "yaml" => yaml::parse("f".into(), text, &yaml::Limits::default())
                .map(|mut d| {
                    for n in &mut d {
                        yaml::take_tags(n);
                    }
                    json!(d.iter().map(tojson).collect::<Vec<_>>())
                })
                .map_err(|e| format!("{} {e}", e.place)),
            "interpolate" => {
                interpolate::interpolate(text, &lookup, &mut |_| {}).map(|s| json!(s)).map_err(|e| e.to_string())
            }
            "dotenv" => dotenv::parse(text, &lookup, &mut |_| {}).map(|s| json!(s)).map_err(|e| e.to_string()),
            "raw" => dotenv::parse_raw(text, &lookup).map(|s| json!(s)).map_err(|e| e.to_string()),
            "shell" => shell::split(text).map(|s| json!(s)).map_err(|e| e.to_string()),
            "duration" => text.parse::<value::Duration>().map(|s| json!(s.to_string())).map_err(|e| e.to_string()),
            "size" => text.parse::<value::ByteSize>().map(|s| json!(s.to_string())).map_err(|e| e.to_string()),
            "mode" => text.parse::<value::FileMode>().map(|s| json!(s.to_string())).map_err(|e| e.to_string()),
            "f32" => text.parse::<value::Cpus>().map(|s| json!(number::json_f32_text(s.0))).map_err(|e| e.to_string()),
            o => panic!("{o}"),
        };
        match r {
            Ok(v) => println!("{}", json!({"ok": v})),
            Err(e) => println!("{}", json!({"err": e})),
        }
    }
}

//! The part of JSON Schema that `docs/command-line.schema.json` is written in.

use serde_json::Value;

/// A definition of the schema.
pub(crate) struct Schema {
    whole: Value,
}

impl Schema {
    pub(crate) fn of_the_command_line() -> Self {
        let text = include_str!("../../../docs/command-line.schema.json");
        Self { whole: serde_json::from_str(text).unwrap() }
    }

    /// Fails where a value is not as the definition of this name says.
    #[track_caller]
    pub(crate) fn holds(&self, name: &str, value: &Value) {
        let mut faults = Vec::new();
        self.check(&self.whole["$defs"][name], value, name, &mut faults);
        assert!(faults.is_empty(), "{faults:#?} in {value:#}");
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let known = ["type", "properties", "additionalProperties", "items", "enum", "$ref", "anyOf", "description"];
        let keys = schema.as_object().unwrap_or_else(|| panic!("no schema for {at}"));
        assert!(
            keys.keys().all(|key| known.contains(&key.as_str())),
            "{at}: this checker does not know all of {schema}"
        );
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.strip_prefix("#/$defs/").unwrap();
            return self.check(&self.whole["$defs"][name], value, at, faults);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let fits = |choice: &&Value| {
                let mut own = Vec::new();
                self.check(choice, value, at, &mut own);
                own.is_empty()
            };
            if !choices.iter().any(|choice| fits(&choice)) {
                faults.push(format!("{at}: {value} is none of {choices:?}"));
            }
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            faults.push(format!("{at}: {value} is none of {words:?}"));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is = |wanted: &&str| match *wanted {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("{at}: no type {other}"),
        };
        if !types.is_empty() && !types.iter().any(is) {
            return faults.push(format!("{at}: {value} is no {types:?}"));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if schema["items"].is_object() {
                self.check(&schema["items"], item, &format!("{at}[{index}]"), faults);
            }
        }
        let Some(fields) = value.as_object() else { return };
        if let Some(properties) = schema["properties"].as_object() {
            for (key, property) in properties {
                match fields.get(key) {
                    Some(field) => self.check(property, field, &format!("{at}.{key}"), faults),
                    None => faults.push(format!("{at}: no {key}")),
                }
            }
            // What is not in the schema is in no document either.
            if !schema["additionalProperties"].is_object() && schema["additionalProperties"] != true {
                let unknown = fields.keys().filter(|key| !properties.contains_key(*key));
                faults.extend(unknown.map(|key| format!("{at}: {key} is not in the schema")));
            }
        }
        if schema["additionalProperties"].is_object() {
            for (key, field) in fields {
                self.check(&schema["additionalProperties"], field, &format!("{at}.{key}"), faults);
            }
        }
    }
}

//! Reads values with their sizes asked first, so that no large one is fetched.

use fred::prelude::KeysInterface;
use fred::types::Value as FredValue;
use futures::future::join_all;

use super::RedisBus;
use crate::bus::{BusError, Call, KeysPage, Unreadable, Value};

/// Keys that the server looks at for one page: however long they are, a page of them is a short answer.
const LOOKED_AT: u32 = 100;

impl RedisBus {
    /// A page of the keys that begin with a prefix.
    pub(super) async fn page_of_keys(&self, prefix: &str, cursor: u64) -> Result<KeysPage, BusError> {
        let call = Call { name: "SCAN", key: None, writes: false };
        let (cursor, pattern) = (cursor.to_string(), beginning_with(prefix));
        let page: FredValue = self
            .call(call, |client| async move { client.scan_page(cursor, pattern, Some(LOOKED_AT), None).await })
            .await?;
        let FredValue::Array(parts) = page else { return Ok(KeysPage::default()) };
        let mut parts = parts.into_iter();
        let next = parts.next().and_then(|cursor| cursor.as_u64()).filter(|next| *next != 0);
        let keys = match parts.next() {
            Some(FredValue::Array(keys)) => keys.into_iter().filter_map(FredValue::into_string).collect(),
            _ => Vec::new(),
        };
        Ok(KeysPage { keys, next })
    }

    /// What is at keys, in their order.
    pub(super) async fn read_bounded(&self, keys: &[String]) -> Result<Vec<Value>, BusError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut values: Vec<Value> = Vec::with_capacity(keys.len());
        let mut fetched = Vec::new();
        let (mut together, mut bytes) = (Vec::new(), 0);
        // Less than an answer may have.
        let together_at_most = self.0.bounds.redis_answer as u64 / 2;
        for (key, size) in keys.iter().zip(self.sizes(keys).await?) {
            let size = match size {
                Ok(size) => size,
                Err(unreadable) => {
                    values.push(Value::Unreadable(unreadable));
                    continue;
                }
            };
            values.push(Value::Absent);
            if bytes + size > together_at_most {
                fetched.extend(self.fetch(std::mem::take(&mut together)).await?);
                bytes = 0;
            }
            together.push(key.clone());
            bytes += size;
        }
        if !together.is_empty() {
            fetched.extend(self.fetch(together).await?);
        }
        let readable = values.iter_mut().filter(|value| matches!(value, Value::Absent));
        for (value, fetched) in readable.zip(fetched) {
            *value = fetched;
        }
        Ok(values)
    }

    /// What may be fetched of each key: its size, or why not.
    async fn sizes(&self, keys: &[String]) -> Result<Vec<Result<u64, Unreadable>>, BusError> {
        let client = self.0.client()?;
        let asked = join_all(keys.iter().map(|key| client.strlen::<u64, _>(key.clone()))).await;
        let most = self.0.bounds.value;
        let sizes = keys.iter().zip(asked).map(|(key, size)| {
            let call = Call { name: "STRLEN", key: Some(key), writes: false };
            match size {
                Ok(bytes) if bytes > most as u64 => Ok(Err(Unreadable::TooLong { bytes, most })),
                Ok(bytes) => {
                    self.0.refusals().accepted(call);
                    Ok(Ok(bytes))
                }
                Err(error) => {
                    let wrong_type = error.details().starts_with("WRONGTYPE");
                    let failed = self.0.failed(call, &error);
                    if wrong_type { Ok(Err(Unreadable::NotText)) } else { Err(failed) }
                }
            }
        });
        sizes.collect()
    }

    async fn fetch(&self, keys: Vec<String>) -> Result<Vec<Value>, BusError> {
        let call = Call { name: "MGET", key: None, writes: false };
        let values: FredValue = self.call(call, |client| async move { client.mget(keys).await }).await?;
        let values = match values {
            FredValue::Array(values) => values,
            single => vec![single],
        };
        Ok(values.into_iter().map(|fetched| value(fetched, self.0.bounds.value)).collect())
    }
}

/// The pattern of what begins with a text, whatever the text has in it.
fn beginning_with(prefix: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '^' | '-' | '\\');
    let escaped = prefix.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c]));
    escaped.chain(['*']).collect()
}

/// A value as it was fetched; it may have grown since its size was asked for.
fn value(fetched: FredValue, most: usize) -> Value {
    if fetched.is_null() {
        return Value::Absent;
    }
    match fetched.into_string() {
        Some(text) if text.len() <= most => Value::Text(text),
        Some(text) => Value::Unreadable(Unreadable::TooLong { bytes: text.len() as u64, most }),
        None => Value::Unreadable(Unreadable::NotText),
    }
}

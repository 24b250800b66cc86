//! What the Engine's answers mean: values, and errors by what a caller can do about them.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http::Answer;
use crate::engine::EngineError;

/// How much of an answer that is an error is read, in bytes.
const ERROR_LIMIT: usize = 64 << 10;

/// How much of the Engine's own words is passed on, in characters.
const MESSAGE_LIMIT: usize = 2_000;

/// The header in which the Engine tells its newest version with every answer.
const VERSION_HEADER: &str = "api-version";

/// The Engine's answer to the question for its version.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct VersionAnswer {
    pub(super) version: String,
    pub(super) api_version: String,
}

/// What the Engine knows of itself, as far as its id.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) struct IdAnswer {
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Created {
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Waited {
    pub(super) status_code: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Executed {
    pub(super) exit_code: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorAnswer {
    pub(super) message: String,
}

pub(super) fn version_header(answer: &Answer<'_>) -> Option<String> {
    Some(answer.headers.get(VERSION_HEADER)?.to_str().ok()?.to_owned())
}

/// The answer, or the error that it is.
pub(super) async fn accepted<'a>(call: &'static str, answer: Answer<'a>) -> Result<Answer<'a>, EngineError> {
    let status = answer.status;
    if status.as_u16() < 400 {
        return Ok(answer);
    }
    let body = answer.read_some(ERROR_LIMIT).await.unwrap_or_default();
    let message = match serde_json::from_slice(&body) {
        Ok(ErrorAnswer { message }) => message,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    Err(refused(call, status.as_u16(), shortened(&message)))
}

/// Sorts an error answer by what a caller can do about it.
pub(super) fn refused(call: &'static str, status: u16, message: String) -> EngineError {
    match status {
        404 => EngineError::NotFound { call, message },
        409 => EngineError::Conflict { call, message },
        // After an Engine was replaced by an older or a newer one: agree on a version again.
        400 if message.contains("client version") => EngineError::Unavailable { call, source: message.into() },
        // The words of a proxy before the socket: the Engine did not answer it, or not in the proxy's time.
        502 | 504 => EngineError::Unavailable { call, source: format!("proxy: {status} {message}").into() },
        _ => EngineError::Call { call, status, message },
    }
}

/// The Engine's words, cut where they are no message any more.
pub(super) fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message.to_owned(),
    }
}

pub(super) fn parsed<T: DeserializeOwned>(call: &'static str, body: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = shortened(&format!("unexpected answer: {error}"));
        EngineError::Call { call, status: 0, message }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_says_of_an_engine_that_does_not_answer_is_unavailable() {
        for status in [502, 504] {
            assert!(matches!(refused("x", status, String::new()), EngineError::Unavailable { .. }), "{status}");
        }
        for status in [500, 503] {
            assert!(
                matches!(refused("x", status, String::new()), EngineError::Call { .. }),
                "{status}: the Engine's own"
            );
        }
        assert!(matches!(refused("x", 404, String::new()), EngineError::NotFound { .. }));
    }

    #[test]
    fn the_engines_words_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let cut = shortened(&"ä".repeat(MESSAGE_LIMIT + 1));
        assert_eq!((cut.chars().count(), cut.ends_with('…')), (MESSAGE_LIMIT + 1, true));
    }
}

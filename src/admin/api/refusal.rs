//! Why the API did not do something.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why something was not done, and what to do about it. This is also the body of each answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{error}")]
#[schemars(rename = "Refusal")]
pub struct ApiError {
    /// The fault.
    pub error: String,
    /// The remedy.
    pub remedy: String,
    /// All faults of a file, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The kind, from which the status of the answer follows.
    #[serde(skip)]
    pub kind: ApiErrorKind,
}

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// 404: it does not exist.
    NotFound,
    /// 409: the present state does not allow it.
    Conflict,
    /// 422: the values are invalid.
    #[default]
    Invalid,
    /// 503: it is not possible now.
    Unavailable,
}

impl ApiErrorKind {
    /// Returns the kind that the status of an answer stands for.
    pub fn of(status: u16) -> Self {
        match status {
            404 => Self::NotFound,
            409 => Self::Conflict,
            503 | 200 => Self::Unavailable,
            _ => Self::Invalid,
        }
    }
}

impl ApiError {
    fn new(kind: ApiErrorKind, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { error: error.into(), remedy: remedy.into(), errors: Vec::new(), kind }
    }

    /// Makes the refusal of something that does not exist.
    pub fn not_found(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::NotFound, error, remedy)
    }

    /// Makes the refusal of something that the present state does not allow.
    pub fn conflict(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::Conflict, error, remedy)
    }

    /// Makes the refusal of invalid values.
    pub fn invalid(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::Invalid, error, remedy)
    }

    /// Makes the refusal of something that is not possible now.
    pub fn unavailable(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::Unavailable, error, remedy)
    }

    /// Makes the refusal of an invalid file, with all of its errors; nothing has changed.
    pub fn wrong_file(errors: Vec<String>) -> Self {
        let refusal = Self::invalid("the file is wrong, and all goes on as before", "correct it, and reload again");
        Self { errors, ..refusal }
    }
}

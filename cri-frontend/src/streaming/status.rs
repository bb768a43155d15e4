//! How a session tells its client how the process ended: the error stream.

use serde_json::{Value, json};

/// What the error stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Nothing, or a text of what went wrong (protocols before v4).
    Text,
    /// Kubernetes' `Status` as JSON, with the exit code.
    Json,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// With code 0, or by leaving.
    Success,
    /// With another code.
    Exit(i32),
    /// It could not be run or watched.
    Failure(String),
}

impl Status {
    /// The bytes for the error stream; none where there is nothing to say.
    pub fn encode(&self, format: Format) -> Option<String> {
        match format {
            Format::Text => self.message(),
            Format::Json => Some(self.json().to_string()),
        }
    }

    fn message(&self) -> Option<String> {
        match self {
            Self::Success => None,
            Self::Exit(code) => Some(format!("command terminated with non-zero exit code: {code}")),
            Self::Failure(why) => Some(format!("Internal error occurred: {why}")),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Success => json!({ "status": "Success" }),
            Self::Exit(code) => json!({
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": self.message(),
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Failure(_) => json!({
                "status": "Failure",
                "reason": "InternalError",
                "message": self.message(),
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_told_as_kubernetes_clients_read_them() {
        assert_eq!(Status::Success.encode(Format::Text), None);
        assert_eq!(Status::Success.encode(Format::Json).unwrap(), r#"{"status":"Success"}"#);
        let text = Status::Exit(137).encode(Format::Json).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "137" }));
        assert!(Status::Failure("no".into()).encode(Format::Text).unwrap().ends_with(": no"));
    }
}

//! Tests of the document against the server.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::json;

use super::*;

/// A request for each path that acts.
const ACTS: [(&str, &str); 9] = [
    ("reload", "{}"),
    ("drain", "{}"),
    ("undrain", "{}"),
    ("ban", r#"{"network":"198.51.100.7"}"#),
    ("unban", r#"{"network":"198.51.100.7"}"#),
    ("revoke", r#"{"edge":"waw1"}"#),
    ("disconnect", r#"{"connection":1}"#),
    ("target", r#"{"listener":"login","target":"first","state":"drain"}"#),
    ("upgrade", r#"{"role":"core","place":".7.up","takes_socket":true}"#),
];

async fn document(server: &Admin) -> Value {
    server.get("/api/v1/openapi.json").await.1
}

/// Follows a reference inside the document.
fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => value,
    }
}

/// Returns the schema of answers with this status to this method of a path.
fn answer(document: &Value, path: &str, method: &str, status: u16) -> Validator {
    let response = &document["paths"][format!("/api/v1/{path}")][method]["responses"][status.to_string()];
    assert!(response.is_object(), "{method} {path} may not answer {status}");
    validator(document, &resolve(document, response)["content"]["application/json"]["schema"])
}

fn validator(document: &Value, schema: &Value) -> Validator {
    // References are resolved within the document.
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::draft202012::new(&whole).unwrap()
}

fn assert_fits(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what}: {errors:?}: {value}");
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let server = Admin::core().await;
    let document = document(&server).await;
    for (path, body) in ACTS {
        let (status, value) = server.post(&format!("/api/v1/{path}"), body).await;
        assert_fits(&answer(&document, path, "post", status), &value, path);
        assert_eq!(status, 200, "{path}");
        let (status, value) = server.post(&format!("/api/v1/{path}"), "[]").await;
        assert_fits(&answer(&document, path, "post", status), &value, path);
        let request = &document["paths"][format!("/api/v1/{path}")]["post"]["requestBody"];
        let request = validator(&document, &request["content"]["application/json"]["schema"]);
        assert_fits(&request, &serde_json::from_str(body).unwrap(), path);
        assert!(!request.is_valid(&json!({ "unknown": 1 })), "{path}: unknown fields are refused");
    }
    for path in [
        "status",
        "listeners",
        "targets",
        "connections",
        "sessions",
        "edges",
        "addresses",
        "bans",
        "traffic",
        "history",
        "events",
        "openapi.json",
    ] {
        let (status, value) = server.get(&format!("/api/v1/{path}")).await;
        assert_eq!(status, 200, "{path}");
        let validator = answer(&document, path, "get", status);
        assert_fits(&validator, &value, path);
        if path != "openapi.json" {
            assert!(!validator.is_valid(&json!({})), "{path}: the schema says something");
            let (status, value) = server.get(&format!("/api/v1/{path}?unknown=1")).await;
            assert_fits(&answer(&document, path, "get", status), &value, path);
        }
    }
    let edge = Admin::edge().await;
    for path in ["status", "sessions"] {
        let (status, value) = edge.get(&format!("/api/v1/{path}")).await;
        assert_fits(&answer(&document, path, "get", status), &value, path);
    }
}

/// Checks that each path of the document is served, by its methods and no other. Every served path is in the document,
/// since both come from one list; the operator's trait shows that no action is missing.
#[tokio::test]
async fn every_path_of_the_document_is_served() {
    let server = Admin::core().await;
    let document = document(&server).await;
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let (status, ..) = server.over_socket(method, path, &[], "").await;
            let is_there = methods.get(method.to_lowercase()).is_some();
            assert_eq!(status != 405, is_there, "{method} {path}: {status}");
        }
        names.insert(path.trim_start_matches("/api/v1/").to_owned());
    }
    let all = "addresses ban bans connections disconnect drain edge edges events history listeners openapi.json probe reload revoke sessions status target \
               targets traffic unban undrain upgrade";
    assert!(names.iter().eq(all.split_whitespace()), "{names:?}");
    assert_eq!(document["openapi"], "3.1.0");
}

/// Checks that questions are described: each field with its type, and none that may be null.
#[tokio::test]
async fn questions_are_parameters() {
    let document = document(&Admin::core().await).await;
    let parameters = &document["paths"]["/api/v1/connections"]["get"]["parameters"];
    let names: Vec<_> = parameters.as_array().unwrap().iter().map(|parameter| &parameter["name"]).collect();
    assert_eq!(names, ["address", "limit", "listener"]);
    assert_eq!(parameters[1]["schema"], json!({ "type": "integer", "minimum": 1, "maximum": 10000, "default": 100 }));
    assert_eq!(parameters[2]["schema"], json!({ "type": "string" }));
    assert!(parameters[2]["description"].is_string());
    assert!(!document.to_string().contains("#/$defs"), "no reference leads out of the document");
    for parameter in parameters.as_array().unwrap() {
        assert!(!parameter.to_string().contains("null"), "{parameter}");
    }
}

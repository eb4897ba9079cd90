//! The document of the API, OpenAPI 3.1: its schemas are those of the types that are sent.

use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::api::ApiError;
use super::api::PREFIX;

/// The statuses other than 200, with their meanings.
const REFUSALS: [(&str, &str); 10] = [
    ("400", "It is not JSON, or not a query that can be asked"),
    ("401", "It needs a token, or another one"),
    ("403", "Acting takes the socket or another token, or a web page sent it"),
    ("404", "What is named does not exist"),
    ("405", "The method is not for this path"),
    ("409", "As things are, it cannot be done"),
    ("413", "The body is too long"),
    ("415", "The body is not said to be JSON"),
    ("422", "The values make no sense"),
    ("503", "It cannot be done now"),
];
/// The statuses of a path that is read.
const OF_SEEING: [&str; 6] = ["400", "401", "403", "404", "405", "503"];

/// The document while it is being built.
pub(super) struct OpenApiDocument {
    paths: Map<String, Value>,
    /// The schemas of requests.
    requests: SchemaGenerator,
    /// The schemas of answers.
    answers: SchemaGenerator,
}

impl Default for OpenApiDocument {
    fn default() -> Self {
        let generator = |contract| {
            let settings = SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
                settings.contract = contract;
            });
            settings.into_generator()
        };
        Self { paths: Map::new(), requests: generator(Contract::Deserialize), answers: generator(Contract::Serialize) }
    }
}

impl OpenApiDocument {
    /// Adds a path that is read.
    pub fn see<Q: JsonSchema, A: JsonSchema>(&mut self, path: &str, about: &str) {
        let question = self.requests.root_schema_for::<Q>();
        let operation = json!({
            "operationId": name(path),
            "summary": about,
            "parameters": parameters(&question),
            "responses": self.responses::<A>(&OF_SEEING),
        });
        self.paths.insert(format!("{PREFIX}{path}"), json!({ "get": operation }));
    }

    /// Adds a path that is read, once or as a stream of what is new.
    pub fn watch<Q: JsonSchema, A: JsonSchema>(&mut self, path: &str, about: &str) {
        self.see::<Q, A>(path, about);
        let stream = json!({
            "schema": { "type": "string", "description": "Server-Sent Events, for those who accept nothing but these" },
        });
        let content = format!("/{}/get/responses/200/content", format!("{PREFIX}{path}").replace('/', "~1"));
        let mut paths = Value::Object(std::mem::take(&mut self.paths));
        if let Some(Value::Object(content)) = paths.pointer_mut(&content) {
            content.insert("text/event-stream".to_owned(), stream);
        }
        if let Value::Object(paths) = paths {
            self.paths = paths;
        }
    }

    /// Adds a path that acts.
    pub fn act<B: JsonSchema, A: JsonSchema>(&mut self, path: &str, about: &str) {
        let body = self.requests.subschema_for::<B>();
        let operation = json!({
            "operationId": name(path),
            "summary": about,
            "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
            "responses": self.responses::<A>(&REFUSALS.map(|(status, _)| status)),
        });
        self.paths.insert(format!("{PREFIX}{path}"), json!({ "post": operation }));
    }

    fn responses<A: JsonSchema>(&mut self, refusals: &[&str]) -> Value {
        let answer = self.answers.subschema_for::<A>();
        let content = json!({ "application/json": { "schema": answer } });
        let done = ("200".to_owned(), json!({ "description": "Done", "content": content }));
        let refusals = refusals.iter().map(|status| {
            let response = json!({ "$ref": format!("#/components/responses/{status}") });
            (status.to_string(), response)
        });
        Value::Object([done].into_iter().chain(refusals).collect())
    }

    /// Returns the document as JSON.
    pub fn finish(mut self) -> String {
        let refusal = self.answers.subschema_for::<ApiError>();
        let responses: Map<_, _> = REFUSALS
            .iter()
            .map(|(status, description)| {
                let content = json!({ "application/json": { "schema": refusal } });
                (status.to_string(), json!({ "description": description, "content": content }))
            })
            .collect();
        let own = json!({
            "operationId": "openapi",
            "summary": "This document",
            "responses": {
                "200": { "description": "Done", "content": { "application/json": { "schema": { "type": "object" } } } },
                "401": { "$ref": "#/components/responses/401" },
                "403": { "$ref": "#/components/responses/403" },
                "405": { "$ref": "#/components/responses/405" },
            },
        });
        self.paths.insert(format!("{PREFIX}/openapi.json"), json!({ "get": own }));
        // A type that is sent in both directions has the same schema in both.
        let mut schemas = self.answers.take_definitions(true);
        schemas.extend(self.requests.take_definitions(true));
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "otproxy",
                "description": "What an operator can see and do. Tokens are needed at `admin.listen` where there are any.",
                "version": env!("CARGO_PKG_VERSION"),
                "license": { "name": "MIT", "identifier": "MIT" },
            },
            "servers": [{ "url": "/" }],
            "security": [{}, { "token": [] }],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "responses": responses,
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            },
        });
        document.to_string()
    }
}

fn name(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Returns the fields of a question, each as a parameter of the query.
fn parameters(question: &Schema) -> Vec<Value> {
    let fields = question.get("properties").and_then(Value::as_object).into_iter().flatten();
    fields
        .map(|(name, schema)| {
            let mut schema = without_null(schema.clone());
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
        })
        .collect()
}

/// Removes null from a schema: in a query an absent value is left out.
fn without_null(mut schema: Value) -> Value {
    let null = json!("null");
    if let Some(kind) = schema.get_mut("type")
        && let Value::Array(types) = kind
    {
        types.retain(|word| *word != null);
        if let [one] = types.as_slice() {
            *kind = one.clone();
        }
    }
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.retain(|schema| schema.get("type") != Some(&null));
    }
    schema
}

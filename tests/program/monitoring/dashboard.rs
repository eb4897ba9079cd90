//! A dashboard as Grafana reads it, from what is to be seen in it.

use serde_json::{Value, json};

use super::promql::{Names, family};

/// The labels by which series of a core, of the edges that are chosen, and of all of both are told apart.
const CHOICES: [(&str, &str); 3] = [
    ("CORE", r#"job=~"$job",instance=~"$instance",role!="edge""#),
    ("EDGE", r#"job=~"$job",instance=~"$instance",role="edge",edge=~"$edge""#),
    ("BOTH", r#"job=~"$job",instance=~"$instance""#),
];
/// The width of a dashboard, in Grafana's columns.
const COLUMNS: u32 = 24;
/// The place of these documents that a package puts there, until somebody says where else they are.
const DOCUMENTS: &str = "file:///usr/share/doc/otproxy/docs";
/// The time between two looks, and the time that is looked at.
const REFRESH: &str = "30s";
const FROM: &str = "now-3h";

/// A dashboard.
pub struct Dashboard {
    /// Its name in Grafana's addresses, which stays.
    pub uid: &'static str,
    /// Its title.
    pub title: &'static str,
    /// The questions that it answers.
    pub about: &'static str,
    /// It shows edges that are chosen.
    pub of_edges: bool,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A row of panels, under a heading.
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// The panels, from left to right.
    pub panels: Vec<Panel>,
}

/// Returns a row.
pub fn row(title: &'static str, panels: impl Into<Vec<Panel>>) -> Row {
    Row { title, panels: panels.into() }
}

/// The form in which a panel shows its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Lines over time.
    Graph,
    /// The latest value, large.
    Number,
    /// A band for each series, coloured by its value.
    States,
    /// Labels and the latest value, a line for each series.
    Table,
}

/// A panel.
pub struct Panel {
    /// Its title, which no other panel of its dashboard has.
    pub title: &'static str,
    about: &'static str,
    form: Form,
    unit: &'static str,
    width: u32,
    stacked: bool,
    most: Option<f64>,
    /// The values from which on a colour holds.
    steps: Vec<(f64, &'static str)>,
    /// The words for values.
    words: Vec<(i64, &'static str, &'static str)>,
    /// The document that says more, and the heading in it.
    see: Option<&'static str>,
    queries: Vec<(String, &'static str)>,
}

impl Panel {
    fn new(form: Form, width: u32, title: &'static str, about: &'static str) -> Self {
        Self {
            title,
            about,
            form,
            unit: "short",
            width,
            stacked: false,
            most: None,
            steps: Vec::new(),
            words: Vec::new(),
            see: None,
            queries: Vec::new(),
        }
    }

    /// Adds an expression, in which CORE, EDGE and BOTH stand for labels, with the text by which each series is told from the others.
    pub fn of(mut self, expression: &str, legend: &'static str) -> Self {
        let expression = CHOICES.iter().fold(expression.to_owned(), |text, (word, labels)| text.replace(word, labels));
        self.queries.push((expression, legend));
        self
    }

    /// Has values shown in this unit of Grafana's.
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Has series stand on each other.
    pub fn stacked(mut self) -> Self {
        self.stacked = true;
        self
    }

    /// Has the scale end there.
    pub fn up_to(mut self, most: f64) -> Self {
        self.most = Some(most);
        self
    }

    /// Has a colour hold from this value on; from 0 on, below it too.
    pub fn from(mut self, value: f64, colour: &'static str) -> Self {
        self.steps.push((value, colour));
        self
    }

    /// Has a word and a colour stand for a value.
    pub fn word(mut self, value: i64, word: &'static str, colour: &'static str) -> Self {
        self.words.push((value, word, colour));
        self
    }

    /// Names the heading of docs/operations.md, or of another document, under which there is more.
    pub fn see(mut self, heading: &'static str) -> Self {
        self.see = Some(heading);
        self
    }

    /// Returns its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        self.queries.iter().map(|(expression, _)| expression.as_str())
    }

    /// Returns the document that says more, and the heading in it.
    pub fn document(&self) -> Option<String> {
        self.see.map(|see| if see.contains(".md#") { see.to_owned() } else { format!("operations.md#{see}") })
    }

    fn height(&self) -> u32 {
        if self.form == Form::Number { 4 } else { 8 }
    }

    /// Returns its description: what it is for, and the meaning of each metric in the words of the catalogue.
    fn description(&self) -> String {
        let mut text = self.about.to_owned();
        let mut named = Vec::new();
        for metric in self.expressions().flat_map(|expression| Names::of(expression).metrics) {
            let Some(family) = family(&metric.name).filter(|family| !named.contains(&family.name)) else { continue };
            named.push(family.name);
            text += &format!("\n\n`{}`: {}", family.name, family.meaning);
        }
        text
    }

    fn json(&self, id: u32, (x, y): (u32, u32)) -> Value {
        let kind = match self.form {
            Form::Graph => "timeseries",
            Form::Number => "stat",
            Form::States => "state-timeline",
            Form::Table => "table",
        };
        let links = self
            .document()
            .map(|document| json!({ "title": "Remedy", "url": format!("${{docs}}/{document}"), "targetBlank": true }));
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description(),
            "datasource": source(),
            "gridPos": { "h": self.height(), "w": self.width, "x": x, "y": y },
            "links": links.into_iter().collect::<Vec<_>>(),
            "fieldConfig": { "defaults": self.field(), "overrides": [] },
            "options": self.options(),
            "transformations": self.transformations(),
            "targets": self.targets(),
        })
    }

    fn field(&self) -> Value {
        // The first colour holds below all values too.
        let (lowest, steps) = match self.steps.split_first() {
            Some((&(0.0, colour), steps)) => (colour, steps),
            _ => ("green", self.steps.as_slice()),
        };
        let steps = steps.iter().map(|(value, colour)| json!({ "color": colour, "value": value }));
        let steps: Vec<_> = std::iter::once(json!({ "color": lowest, "value": null })).chain(steps).collect();
        let words = self.words.iter().enumerate().map(|(index, (value, word, colour))| {
            (value.to_string(), json!({ "text": word, "color": colour, "index": index }))
        });
        let words: serde_json::Map<_, _> = words.collect();
        let mappings = if words.is_empty() { json!([]) } else { json!([{ "type": "value", "options": words }]) };
        let mut field = json!({
            "unit": self.unit,
            "color": { "mode": if self.form == Form::Graph { "palette-classic" } else { "thresholds" } },
            "thresholds": { "mode": "absolute", "steps": steps },
            "mappings": mappings,
        });
        if self.form == Form::Graph {
            field["min"] = json!(0);
            field["custom"] = json!({
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": if self.stacked { 30 } else { 10 },
                "showPoints": "never",
                "stacking": { "mode": if self.stacked { "normal" } else { "none" }, "group": "A" },
                "thresholdsStyle": { "mode": if self.steps.is_empty() { "off" } else { "line" } },
            });
        }
        if self.form == Form::Table && !self.steps.is_empty() {
            field["custom"] = json!({ "cellOptions": { "type": "color-text" } });
        }
        if let Some(most) = self.most {
            field["max"] = json!(most);
        }
        field
    }

    fn options(&self) -> Value {
        match self.form {
            Form::Graph => json!({
                "legend": {
                    "showLegend": true, "displayMode": "table", "placement": "bottom",
                    "calcs": ["lastNotNull", "max"], "sortBy": "Max", "sortDesc": true,
                },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Form::Number => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": "value", "graphMode": "area", "textMode": "auto", "justifyMode": "auto", "orientation": "auto",
            }),
            Form::States => json!({
                "showValue": "auto", "mergeValues": true, "rowHeight": 0.9,
                "legend": { "showLegend": false, "displayMode": "list", "placement": "bottom", "calcs": [] },
                "tooltip": { "mode": "single", "sort": "none" },
            }),
            Form::Table => json!({ "showHeader": true, "cellHeight": "sm" }),
        }
    }

    /// Returns what makes a table of series: their labels, without the time of the look.
    fn transformations(&self) -> Value {
        if self.form != Form::Table {
            return json!([]);
        }
        // A value that says nothing is left out too.
        let hidden = if self.unit == "none" { json!({ "Time": true, "Value": true }) } else { json!({ "Time": true }) };
        let names = json!({ "Value": "left" });
        json!([{ "id": "organize", "options": { "excludeByName": hidden, "indexByName": {}, "renameByName": names } }])
    }

    fn targets(&self) -> Vec<Value> {
        let target = |(index, (expression, legend)): (usize, &(String, &'static str))| {
            let latest = self.form == Form::Table;
            json!({
                "refId": char::from(b'A' + u8::try_from(index).expect("few")).to_string(),
                "datasource": source(),
                "expr": expression,
                "legendFormat": legend,
                "format": if latest { "table" } else { "time_series" },
                "instant": latest,
                "range": !latest,
            })
        };
        self.queries.iter().enumerate().map(target).collect()
    }
}

/// Returns a panel of lines over time.
pub fn graph(title: &'static str, about: &'static str) -> Panel {
    Panel::new(Form::Graph, 8, title, about)
}

/// Returns a panel of one large number.
pub fn number(title: &'static str, about: &'static str) -> Panel {
    Panel::new(Form::Number, 3, title, about)
}

/// Returns a panel of states over time.
pub fn states(title: &'static str, about: &'static str) -> Panel {
    Panel::new(Form::States, 8, title, about)
}

/// Returns a panel of series as lines of a table.
pub fn table(title: &'static str, about: &'static str) -> Panel {
    Panel::new(Form::Table, 8, title, about)
}

impl Dashboard {
    /// Returns all panels.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// Returns the expressions that are in no panel: of marks in all graphs, and of variables.
    pub fn other_expressions(&self) -> Vec<String> {
        let of = |list: &Value, key: &str| {
            let all = list.as_array().expect("a list").iter().filter_map(|each| each[key].as_str().map(str::to_owned));
            all.collect::<Vec<_>>()
        };
        let choices = of(&self.variables(), "definition").into_iter().map(|text| {
            let inside = text.strip_prefix("label_values(").and_then(|text| text.strip_suffix(')')).expect("labels");
            inside.rsplit_once(", ").expect("a metric and a label").0.to_owned()
        });
        choices.chain(of(&annotations(), "expr")).collect()
    }

    /// Returns the file.
    pub fn json(&self) -> String {
        let mut panels = Vec::new();
        let (mut id, mut y) = (0, 0);
        for Row { title, panels: of_row } in &self.rows {
            id += 1;
            panels.push(json!({
                "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
                "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": y },
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in of_row {
                if x + panel.width > COLUMNS {
                    (x, y, height) = (0, y + height, 0);
                }
                id += 1;
                panels.push(panel.json(id, (x, y)));
                x += panel.width;
                height = height.max(panel.height());
            }
            y += height;
        }
        let dashboard = json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": ["otproxy"],
            "editable": true,
            "graphTooltip": 1,
            "refresh": REFRESH,
            "schemaVersion": 39,
            "version": 1,
            "time": { "from": FROM, "to": "now" },
            "timezone": "browser",
            "templating": { "list": self.variables() },
            "annotations": { "list": annotations() },
            "links": [
                {
                    "type": "dashboards", "title": "otproxy", "tags": ["otproxy"], "asDropdown": false,
                    "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
                },
                {
                    "type": "link", "title": "Operations", "url": "${docs}/operations.md#dashboards-and-alerts", "tags": [],
                    "asDropdown": false, "includeVars": false, "keepTime": false, "targetBlank": true, "icon": "doc",
                    "tooltip": "The meaning of each alert, and what to do",
                },
            ],
            "panels": panels,
        });
        let mut text = serde_json::to_string_pretty(&dashboard).expect("JSON");
        text.push('\n');
        text
    }

    fn variables(&self) -> Value {
        let choice = |name: &str, label: &str, query: &str| {
            json!({
                "type": "query", "name": name, "label": label, "datasource": source(),
                "definition": query, "query": { "query": query, "refId": name },
                "refresh": 2, "sort": 1, "multi": true, "includeAll": true,
                "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
                "options": [], "regex": "", "hide": 0, "skipUrlSync": false,
            })
        };
        let mut list = vec![
            json!({
                "type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus",
                "refresh": 1, "multi": false, "includeAll": false,
                "current": { "selected": true, "text": "default", "value": "default" }, "options": [], "regex": "", "hide": 0, "skipUrlSync": false,
            }),
            choice("job", "Job", "label_values(otproxy_build_info, job)"),
            choice("instance", "Instance", "label_values(otproxy_build_info{job=~\"$job\"}, instance)"),
        ];
        if self.of_edges {
            let edges = r#"label_values(otproxy_build_info{job=~"$job",instance=~"$instance",role="edge"}, edge)"#;
            list.push(choice("edge", "Edge", edges));
        }
        list.push(json!({
            "type": "textbox", "name": "docs", "label": "Documents at", "query": DOCUMENTS,
            "current": { "selected": true, "text": DOCUMENTS, "value": DOCUMENTS },
            "options": [{ "selected": true, "text": DOCUMENTS, "value": DOCUMENTS }], "hide": 0, "skipUrlSync": false,
        }));
        Value::Array(list)
    }
}

/// Returns the marks in all graphs: restarts, and alerts.
fn annotations() -> Value {
    let mark = |name: &str, colour: &str, expression: &str, title: &str, text: &str| {
        json!({
            "name": name, "enable": true, "hide": false, "iconColor": colour, "datasource": source(),
            "expr": expression, "step": "60s", "titleFormat": title, "textFormat": text, "useValueForTime": false,
        })
    };
    let restarts = r#"changes(process_start_time_seconds{job=~"$job",instance=~"$instance"}[2m]) > 0"#;
    let alerts = r#"ALERTS{job=~"$job",alertname=~"Otproxy.*",alertstate="firing",severity!="info"}"#;
    json!([
        mark("Restarts", "blue", restarts, "Restart", "{{instance}} {{edge}}"),
        mark("Alerts", "red", alerts, "{{alertname}}", "{{instance}} {{edge}}"),
    ])
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

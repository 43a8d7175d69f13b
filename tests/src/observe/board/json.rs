//! Dashboards as Grafana reads them: its classic JSON, as of Grafana 11 (schema 39), which 12 takes as well.

use serde_json::{Value, json};

use super::{Bad, Board, Look, Panel, Query, Unit, Variable, WIDTH};

const SCHEMA: u32 = 39;
const HEIGHT_OF_FIGURES: u64 = 4;
const HEIGHT: u64 = 8;

pub(super) fn text(board: &Board) -> String {
    let mut variables = vec![json!({
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "current": {},
        "refresh": 1,
    })];
    variables.extend(board.variables.iter().map(variable));
    let whole = json!({
        "uid": board.uid(),
        "title": format!("Ringmail / {}", board.title),
        "description": board.description,
        "tags": ["ringmail"],
        "schemaVersion": SCHEMA,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "",
        "links": [{
            "type": "dashboards",
            "title": "Ringmail",
            "tags": ["ringmail"],
            "asDropdown": true,
            "includeVars": true,
            "keepTime": true,
        }],
        "templating": { "list": variables },
        "panels": panels(board),
    });
    format!("{whole:#}\n")
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variable(variable: &Variable) -> Value {
    let query = format!("label_values({}, {})", variable.series(), variable.name);
    json!({
        "type": "query",
        "name": variable.name,
        "label": variable.label,
        "datasource": source(),
        "definition": query,
        "query": { "qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery" },
        "regex": "",
        "options": [],
        "refresh": 2,
        "sort": 1,
        "multi": true,
        "includeAll": true,
        "allValue": ".*",
        "current": { "text": ["All"], "value": ["$__all"] },
    })
}

/// Each in its place.
fn panels(board: &Board) -> Vec<Value> {
    let mut all = Vec::new();
    let mut y = 0;
    for row in &board.rows {
        let id = all.len() + 1;
        all.push(json!({
            "id": id,
            "type": "row",
            "title": row.title,
            "collapsed": false,
            "gridPos": { "x": 0, "y": y, "w": WIDTH, "h": 1 },
            "panels": [],
        }));
        y += 1;
        let (mut x, mut tallest) = (0, 0);
        for one in &row.panels {
            if x + one.width > WIDTH {
                y += tallest;
                (x, tallest) = (0, 0);
            }
            let h = match one.look {
                Look::Figure => HEIGHT_OF_FIGURES,
                _ => HEIGHT,
            };
            let mut made = panel(one);
            made["id"] = json!(all.len() + 1);
            made["gridPos"] = json!({ "x": x, "y": y, "w": one.width, "h": h });
            all.push(made);
            x += one.width;
            tallest = tallest.max(h);
        }
        y += tallest;
    }
    all
}

fn panel(panel: &Panel) -> Value {
    let (kind, options) = look(panel.look);
    let targets = panel.queries.iter().zip('A'..);
    let targets: Vec<_> = targets
        .map(|(query, name)| target(panel.look, query, name))
        .collect();
    let mut made = json!({
        "type": kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": source(),
        "targets": targets,
        "options": options,
        "fieldConfig": {
            "defaults": defaults(panel),
            "overrides": overrides(panel),
        },
    });
    if panel.look == Look::Table {
        made["transformations"] = columns(panel);
    }
    if panel.look == Look::Spread {
        made["interval"] = json!("1m");
    }
    made
}

fn target(look: Look, query: &Query, name: char) -> Value {
    let is_now = matches!(look, Look::Figure | Look::Table);
    let format = match look {
        Look::Table => "table",
        Look::Buckets => "heatmap",
        Look::Figure | Look::Lines | Look::Stack | Look::Spread => "time_series",
    };
    json!({
        "refId": name.to_string(),
        "datasource": source(),
        "expr": query.expression,
        "legendFormat": query.legend,
        "instant": is_now,
        "range": !is_now,
        "format": format,
    })
}

/// The panel's type and how it is set.
fn look(look: Look) -> (&'static str, Value) {
    let legend = json!({ "displayMode": "list", "placement": "bottom", "showLegend": true });
    match look {
        Look::Figure => (
            "stat",
            json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": "value",
                "graphMode": "none",
                "textMode": "auto",
            }),
        ),
        Look::Lines | Look::Stack => (
            "timeseries",
            json!({ "legend": legend, "tooltip": { "mode": "multi", "sort": "desc" } }),
        ),
        Look::Table => ("table", json!({ "showHeader": true, "cellHeight": "sm" })),
        Look::Buckets => (
            "heatmap",
            json!({
                "calculate": false,
                "yAxis": { "unit": "s" },
                "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64 },
                "cellGap": 1,
                "legend": { "show": true },
                "tooltip": { "mode": "single" },
            }),
        ),
        Look::Spread => (
            "heatmap",
            json!({
                "calculate": true,
                "calculation": { "yBuckets": { "mode": "count", "value": "20" } },
                "yAxis": { "unit": "s" },
                "color": { "mode": "scheme", "scheme": "RdYlGn", "steps": 64 },
                "cellGap": 1,
                "legend": { "show": true },
                "tooltip": { "mode": "single" },
            }),
        ),
    }
}

fn defaults(panel: &Panel) -> Value {
    let step = |color: &str, value: Option<f64>| json!({ "color": color, "value": value });
    let steps = match panel.bad {
        Bad::Never => vec![step("green", None)],
        Bad::Above(warning, alarm) => vec![
            step("green", None),
            step("orange", Some(warning)),
            step("red", Some(alarm)),
        ],
        Bad::Below(warning, alarm) => vec![
            step("red", None),
            step("orange", Some(alarm)),
            step("green", Some(warning)),
        ],
    };
    let mut made = json!({
        "unit": unit(panel.unit),
        "noValue": panel.empty,
        "color": { "mode": if panel.look == Look::Figure { "thresholds" } else { "palette-classic" } },
        "thresholds": { "mode": "absolute", "steps": steps },
        "custom": {},
        "mappings": [],
    });
    match panel.unit {
        Unit::Share => (made["min"], made["max"]) = (json!(0), json!(1)),
        Unit::Flag => {
            made["mappings"] = json!([{
                "type": "value",
                "options": { "0": { "text": "no" }, "1": { "text": "yes" } },
            }]);
        }
        _ => made["min"] = json!(0),
    }
    match panel.look {
        Look::Lines => {
            made["custom"] = json!({ "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto" });
        }
        Look::Stack => {
            made["custom"] = json!({
                "lineWidth": 1,
                "fillOpacity": 40,
                "showPoints": "auto",
                "stacking": { "mode": "normal", "group": "A" },
            });
        }
        Look::Figure | Look::Table | Look::Buckets | Look::Spread => {}
    }
    made
}

/// Units of a table's columns, and where its rows lead.
fn overrides(panel: &Panel) -> Vec<Value> {
    if panel.look != Look::Table {
        return Vec::new();
    }
    let named = |name: &str, id: &str, value: Value| json!({ "matcher": { "id": "byName", "options": name }, "properties": [{ "id": id, "value": value }] });
    let units = panel
        .queries
        .iter()
        .map(|query| named(query.legend, "unit", json!(unit(query.unit))));
    let links = panel.link.iter().flat_map(|link| {
        let to = json!([{ "title": "Show", "url": link.to_string() }]);
        link.hands_on
            .iter()
            .map(move |(label, _)| named(label, "links", to.clone()))
    });
    units.chain(links).collect()
}

/// One row for each set of labels, and no time.
fn columns(panel: &Panel) -> Value {
    let mut names = serde_json::Map::new();
    // Of a single expression Grafana calls the column after no letter.
    if let [only] = &panel.queries[..] {
        names.insert("Value".into(), json!(only.legend));
    }
    for (query, name) in panel.queries.iter().zip('A'..) {
        names.insert(format!("Value #{name}"), json!(query.legend));
    }
    json!([
        { "id": "merge", "options": {} },
        { "id": "organize", "options": { "excludeByName": { "Time": true }, "renameByName": names } },
    ])
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Count | Unit::Flag => "short",
        Unit::PerSecond => "cps",
        Unit::Requests => "reqps",
        Unit::Bytes => "bytes",
        Unit::Traffic => "Bps",
        Unit::Seconds => "s",
        Unit::Share => "percentunit",
    }
}

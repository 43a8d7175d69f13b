//! `ringmail graph`: the topology, as a graph for Graphviz or as JSON: everything that passed since the sidecars began.

use std::fmt::Write;

use serde::Serialize;

use super::asked::{self, Which};
use super::edges::{Edges, edges};
use super::report::{self, Format};

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Question {
    #[command(flatten)]
    which: Which,
}

/// One edge.
#[derive(Debug, Serialize)]
struct Row<'a> {
    from: &'a str,
    to: &'a str,
    tls: &'static str,
    requests: f64,
    success: Option<f64>,
    connections: f64,
}

pub(super) async fn run(format: Format, question: &Question) -> anyhow::Result<bool> {
    let (told, silent) = asked::answered(question.which.pages("metrics").await?);
    let edges = edges(&told);
    match format {
        Format::Table => report::say(dot(&edges).trim_end())?,
        Format::Json => report::print(format, &rows(&edges), &[], "")?,
    }
    report::warn(&silent)?;
    Ok(silent.is_empty())
}

fn rows(edges: &Edges) -> Vec<Row<'_>> {
    edges
        .iter()
        .map(|(ends, passed)| Row {
            from: &ends.from,
            to: &ends.to,
            tls: if ends.is_mutual { "mutual" } else { "none" },
            requests: passed.requests,
            success: passed.success(),
            connections: passed.connections,
        })
        .collect()
}

/// What is not under mutual TLS is dashed, and what fails is red.
fn dot(edges: &Edges) -> String {
    let mut text = "digraph mesh {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for row in rows(edges) {
        let mut label = Vec::new();
        if row.requests > 0.0 {
            label.push(format!("{} requests", row.requests));
        }
        if let Some(success) = row.success {
            label.push(format!("{success:.2} %"));
        }
        if row.connections > 0.0 {
            label.push(format!("{} connections", row.connections));
        }
        let style = if row.tls == "mutual" {
            ""
        } else {
            ", style=dashed"
        };
        let color = match row.success {
            Some(success) if success < 99.0 => ", color=red",
            Some(_) | None => "",
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {} -> {} [label={}{style}{color}];",
            quoted(row.from),
            quoted(row.to),
            quoted(&label.join(", "))
        );
    }
    text + "}\n"
}

/// An identifier of the DOT language.
fn quoted(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::super::edges::{Ends, Passed};
    use super::*;

    #[test]
    fn as_graphviz_reads_it() {
        let ends = |is_mutual| Ends {
            from: "a\"b".to_owned(),
            to: "shop/cart".to_owned(),
            is_mutual,
        };
        let passed = |failures| Passed {
            requests: 10.0,
            failures,
            connections: 1.0,
            buckets: Vec::new(),
        };
        let text = dot(&Edges::from([
            (ends(true), passed(0.0)),
            (ends(false), passed(5.0)),
        ]));
        let expected = r#"digraph mesh {
  rankdir=LR;
  node [shape=box];
  "a\"b" -> "shop/cart" [label="10 requests, 50.00 %, 1 connections", style=dashed, color=red];
  "a\"b" -> "shop/cart" [label="10 requests, 100.00 %, 1 connections"];
}
"#;
        assert_eq!(text, expected);
    }
}

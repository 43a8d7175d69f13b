//! What a dashboard is made of: rows of panels, each with expressions, and the variables that these name. Pure.
//!
//! Expressions are PromQL with two abbreviations: `@` stands for the namespaces and workloads that were chosen, `[R]` for the
//! range that Grafana finds right for a rate. No expression rests on a recording rule: dashboards work without our rules.

use std::fmt;

/// As Grafana reads them.
mod json;

/// What `@` stands for.
const OWN: &str = "namespace=~'$namespace', workload=~'$workload'";
/// What `[R]` stands for.
const RANGE: &str = "[$__rate_interval]";

/// A page.
#[derive(Debug, Clone)]
pub struct Board {
    /// What links call it, after `ringmail-`; also the name of its file.
    pub name: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What can be chosen.
    pub variables: Vec<Variable>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// Panels beside each other.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its heading.
    pub title: &'static str,
    /// From left to right; wrapped at 24 columns.
    pub panels: Vec<Panel>,
}

/// Columns of Grafana's grid.
const WIDTH: u64 = 24;

/// Something to choose: any of the values that a label has, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// As expressions name it.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// Of which series, with abbreviations.
    pub series: &'static str,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A count.
    Count,
    /// So many a second.
    PerSecond,
    /// Requests a second.
    Requests,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    Traffic,
    /// A time.
    Seconds,
    /// A part of one.
    Share,
    /// No or yes.
    Flag,
}

/// How a panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// One figure now.
    Figure,
    /// Lines over time.
    Lines,
    /// Areas on top of each other.
    Stack,
    /// Rows of what is now, one column for each expression.
    Table,
    /// A histogram over time.
    Buckets,
    /// Where values are, over time.
    Spread,
}

/// What makes values bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bad {
    /// No value is.
    Never,
    /// From here on, a warning and an alarm.
    Above(f64, f64),
    /// Below these.
    Below(f64, f64),
}

/// What must be there for a panel to show anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A mesh in use.
    Mesh,
    /// A cluster: webhooks, writes.
    Cluster,
    /// A ledger in Redis.
    Redis,
    /// A collector of OpenTelemetry.
    Collector,
    /// Something that breaks, and that no test breaks.
    Fault,
}

/// An expression, and what its series or its column are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// PromQL, written out.
    pub expression: String,
    /// With `{{label}}`; of a table, the column.
    pub legend: &'static str,
    /// Of a table's column, where it differs.
    pub unit: Unit,
}

/// Where rows of a table lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// [`Board::name`].
    pub board: &'static str,
    /// Labels that become variables there: label, variable.
    pub hands_on: &'static [(&'static str, &'static str)],
}

/// One panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its heading.
    pub title: &'static str,
    /// What it shows, and what to make of it.
    pub description: &'static str,
    /// How.
    pub look: Look,
    /// Of all its values.
    pub unit: Unit,
    /// What it asks.
    pub queries: Vec<Query>,
    /// What is bad.
    pub bad: Bad,
    /// What it says when there is nothing.
    pub empty: &'static str,
    /// Of 24.
    pub width: u64,
    /// Where its rows lead.
    pub link: Option<Link>,
    /// What it shows nothing without.
    pub needs: Needs,
}

/// The expression without abbreviations.
#[must_use]
pub fn written_out(short: &str) -> String {
    short.replace('@', OWN).replace("[R]", RANGE)
}

fn panel(look: Look, title: &'static str, description: &'static str, unit: Unit) -> Panel {
    Panel {
        title,
        description,
        look,
        unit,
        queries: Vec::new(),
        bad: Bad::Never,
        empty: "nothing yet",
        width: match look {
            Look::Figure => 4,
            Look::Lines | Look::Stack | Look::Buckets | Look::Spread => 12,
            Look::Table => WIDTH,
        },
        link: None,
        needs: Needs::Mesh,
    }
}

/// One figure now.
#[must_use]
pub fn figure(
    title: &'static str,
    description: &'static str,
    unit: Unit,
    expression: &str,
) -> Panel {
    panel(Look::Figure, title, description, unit).asks(expression, title)
}

/// Lines over time; [`Panel::asks`] adds them.
#[must_use]
pub fn lines(title: &'static str, description: &'static str, unit: Unit) -> Panel {
    panel(Look::Lines, title, description, unit)
}

/// Parts of a whole over time.
#[must_use]
pub fn stack(title: &'static str, description: &'static str, unit: Unit) -> Panel {
    panel(Look::Stack, title, description, unit)
}

/// Rows of what is now; [`Panel::column`] adds to them.
#[must_use]
pub fn table(title: &'static str, description: &'static str) -> Panel {
    panel(Look::Table, title, description, Unit::Count)
}

/// A histogram over time; `expression` has the label `le`.
#[must_use]
pub fn buckets(title: &'static str, description: &'static str, expression: &str) -> Panel {
    panel(Look::Buckets, title, description, Unit::Seconds).asks(expression, "{{le}}")
}

/// Where the values of many series are, over time.
#[must_use]
pub fn spread(
    title: &'static str,
    description: &'static str,
    unit: Unit,
    expression: &str,
) -> Panel {
    panel(Look::Spread, title, description, unit).asks(expression, "{{workload}}")
}

impl Panel {
    /// Another expression.
    #[must_use]
    pub fn asks(mut self, expression: &str, legend: &'static str) -> Self {
        self.queries.push(Query {
            expression: written_out(expression),
            legend,
            unit: self.unit,
        });
        self
    }

    /// Another column.
    #[must_use]
    pub fn column(mut self, name: &'static str, unit: Unit, expression: &str) -> Self {
        self.queries.push(Query {
            expression: written_out(expression),
            legend: name,
            unit,
        });
        self
    }

    /// The median and the slowest, of a histogram's `rate` by any labels of `legend`.
    #[must_use]
    pub fn quantiles(mut self, histogram: &str, by: &str) -> Self {
        let by = if by.is_empty() {
            "le".to_owned()
        } else {
            format!("le, {by}")
        };
        for (quantile, legend) in [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")] {
            let expression =
                format!("histogram_quantile({quantile}, sum by ({by}) (rate({histogram}[R])))");
            self = self.asks(&expression, legend);
        }
        self
    }

    /// What is bad.
    #[must_use]
    pub fn bad(mut self, bad: Bad) -> Self {
        self.bad = bad;
        self
    }

    /// What it says when there is nothing.
    #[must_use]
    pub fn empty(mut self, says: &'static str) -> Self {
        self.empty = says;
        self
    }

    /// How wide, of 24.
    #[must_use]
    pub fn wide(mut self, width: u64) -> Self {
        self.width = width;
        self
    }

    /// Rows lead to `board`.
    #[must_use]
    pub fn leads(
        mut self,
        board: &'static str,
        hands_on: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.link = Some(Link { board, hands_on });
        self
    }

    /// Shows nothing without.
    #[must_use]
    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
}

impl Board {
    /// The name of its file, without what it ends in.
    #[must_use]
    pub fn file(&self) -> &'static str {
        self.name
    }

    /// What Grafana calls it.
    #[must_use]
    pub fn uid(&self) -> String {
        uid(self.name)
    }

    /// As a file.
    #[must_use]
    pub fn json(&self) -> String {
        json::text(self)
    }

    /// All panels.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }
}

fn uid(name: &str) -> String {
    format!("ringmail-{name}")
}

impl Variable {
    /// What asks for its values.
    #[must_use]
    pub fn series(&self) -> String {
        written_out(self.series)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/d/{}?var-datasource=${{datasource}}&", uid(self.board))?;
        for (label, variable) in self.hands_on {
            write!(f, "var-{variable}=${{__data.fields[\"{label}\"]}}&")?;
        }
        f.write_str("${__url_time_range}")
    }
}

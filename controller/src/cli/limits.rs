//! `ringmail limits`: each rate limit, what is used of it and by which keys, and where the ledger is. Replicas that lease
//! from one Redis each know of the proxies that they serve: what they say is put together here.

use std::collections::BTreeMap;

use anyhow::Context;
use http::Uri;
use serde::Serialize;

use super::controller::Controller;
use super::report::{self, Format};
use crate::admin::limits::{KeyRow, LedgerHome, Page, Row, Use};

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Question {
    /// How many keys of each limit are shown, those first that use most; the ledger tells 20 apart.
    #[arg(long, default_value_t = 3)]
    top: usize,
    /// The controller's pages, such as http://127.0.0.1:15014; in a cluster they are found.
    #[arg(long)]
    controller: Option<Uri>,
}

/// The answer.
#[derive(Debug, PartialEq, Serialize)]
struct Answer {
    home: LedgerHome,
    replicas: Vec<Replica>,
    /// Replicas that did not answer, and why: what they know is missing.
    silent: Vec<String>,
    /// Whether limits do as their `onUnavailable` says, as far as those tell who were asked.
    fallback_active: bool,
    limits: Vec<Row>,
}

/// One controller.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Replica {
    replica: String,
    /// As its page says.
    leases: Option<bool>,
    proxies: usize,
}

/// A limit, for people.
#[derive(Debug, Serialize)]
struct Line {
    limit: String,
    rate: String,
    key: String,
    scope: String,
    mode: String,
    used: String,
    keys: Option<usize>,
    refused: String,
}

/// A key, for people.
#[derive(Debug, Serialize)]
struct KeyLine {
    top_keys: String,
    key: String,
    used: String,
    tokens: String,
    refused: String,
}

pub(super) async fn run(format: Format, system: &str, question: &Question) -> anyhow::Result<bool> {
    let controller = Controller::find(question.controller.as_ref(), system).await?;
    let pages = controller.pages("limits").await;
    let answer = answer(pages.into_iter().map(read).collect(), question.top)?;
    show(format, &answer)?;
    let is_understood = answer.limits.iter().all(|row| row.problem.is_none());
    Ok(is_understood && !answer.fallback_active && answer.silent.is_empty())
}

fn read((replica, page): (String, anyhow::Result<String>)) -> (String, anyhow::Result<Page>) {
    let page = page
        .and_then(|page| serde_json::from_str(&page).context("the answer is none of a controller"));
    (replica, page)
}

/// An error of nobody who answers.
fn answer(pages: Vec<(String, anyhow::Result<Page>)>, top: usize) -> anyhow::Result<Answer> {
    let (mut home, mut silent) = (None, Vec::new());
    let (mut replicas, mut limits) = (Vec::new(), BTreeMap::<String, Row>::new());
    for (replica, page) in pages {
        let page = match page {
            Ok(page) => page,
            Err(problem) => {
                silent.push(format!("{replica}: {problem:#}"));
                continue;
            }
        };
        home = Some(page.ledger.home);
        replicas.push(Replica {
            replica,
            leases: page.ledger.leases,
            proxies: page.ledger.proxies,
        });
        for row in page.limits {
            match limits.get_mut(&row.limit) {
                Some(known) => known.add(row),
                None => drop(limits.insert(row.limit.clone(), row)),
            }
        }
    }
    let home = home.with_context(|| format!("no controller answers: {}", silent.join("; ")))?;
    let mut limits: Vec<Row> = limits.into_values().collect();
    for row in &mut limits {
        row.top.sort_by(|one, other| {
            let by_use = other.used.share.total_cmp(&one.used.share);
            by_use.then(other.used.refused.total_cmp(&one.used.refused))
        });
        row.top.truncate(top);
    }
    let is_leasing = replicas.iter().any(|one| one.leases == Some(true));
    let is_needed = limits.iter().any(|row| row.scope == "global");
    Ok(Answer {
        home,
        replicas,
        silent,
        fallback_active: is_needed && !is_leasing,
        limits,
    })
}

impl Row {
    /// What another replica says of the same limit. A key that proxies of both speak of is counted twice.
    fn add(&mut self, other: Self) {
        for row in other.top {
            match self.top.iter_mut().find(|known| known.key == row.key) {
                Some(known) => known.used = known.used.and(row.used),
                None => self.top.push(row),
            }
        }
        self.keys = match (self.keys, other.keys) {
            (Some(own), Some(more)) => Some(own + more),
            (own, more) => own.or(more),
        };
        let together = match (self.used, other.used) {
            (Some(own), Some(more)) => Some(own.and(more)),
            (own, more) => own.or(more),
        };
        // The busiest key of one need not be that of the other.
        let busiest = |top: &[KeyRow]| top.iter().map(|one| one.used.share).fold(0.0, f64::max);
        let own = self.used.map_or(0.0, |used| used.share);
        let more = other.used.map_or(0.0, |used| used.share);
        let share = busiest(&self.top).max(own).max(more);
        self.used = together.map(|used| Use { share, ..used });
    }
}

impl Use {
    /// Each replica knows what its own proxies spent, and of a bucket that is empty all that was: both together are no more
    /// than the limit, unless one of them says so.
    fn and(self, other: Self) -> Self {
        let most = self.share.max(other.share).max(1.0);
        Self {
            share: (self.share + other.share).min(most),
            tokens: self.tokens + other.tokens,
            refused: self.refused + other.refused,
        }
    }
}

fn show(format: Format, answer: &Answer) -> anyhow::Result<()> {
    if format == Format::Json {
        return report::print(format, std::slice::from_ref(answer), &[], "");
    }
    let lines: Vec<_> = answer.limits.iter().map(line).collect();
    let columns = [
        "limit", "rate", "key", "scope", "mode", "used", "keys", "refused",
    ];
    report::print(format, &lines, &columns, "There is no rate limit.")?;
    let keys: Vec<_> = answer.limits.iter().flat_map(key_lines).collect();
    if !keys.is_empty() {
        report::say("")?;
        let columns = ["top_keys", "key", "used", "tokens", "refused"];
        report::print(format, &keys, &columns, "")?;
    }
    if !answer.limits.is_empty() {
        report::say("")?;
        report::say(&ledger(answer))?;
    }
    for silent in &answer.silent {
        report::say(&format!("No answer of {silent}"))?;
    }
    for row in &answer.limits {
        if let Some(problem) = &row.problem {
            report::say(&format!("{} refuses all it is for: {problem}", row.limit))?;
        }
    }
    match answer.limits.iter().any(|row| row.scope == "local") {
        true => report::say("Limits of scope local are each proxy's own: no ledger knows of them."),
        false => Ok(()),
    }
}

fn line(row: &Row) -> Line {
    let unknown = || "-".to_owned();
    Line {
        limit: row.limit.clone(),
        rate: row.rate.clone(),
        key: row.key.clone(),
        scope: row.scope.clone(),
        mode: row.mode.clone(),
        used: row.used.map_or_else(unknown, |used| percent(used.share)),
        keys: row.keys,
        refused: row.used.map_or_else(unknown, |used| often(used.refused)),
    }
}

fn key_lines(row: &Row) -> impl Iterator<Item = KeyLine> + '_ {
    row.top.iter().map(|one| KeyLine {
        top_keys: row.limit.clone(),
        key: one.key.clone(),
        used: percent(one.used.share),
        tokens: match row.rate.ends_with("at once") {
            true => format!("{:.0} held", one.used.tokens),
            false => often(one.used.tokens),
        },
        refused: often(one.used.refused),
    })
}

/// Where the ledger is.
fn ledger(answer: &Answer) -> String {
    let here = answer.replicas.iter().filter(|one| one.leases.is_some());
    let names: Vec<_> = here.clone().map(|one| one.replica.as_str()).collect();
    let proxies: usize = here.map(|one| one.proxies).sum();
    let names = names.join(", ");
    let at = match (answer.home, names.is_empty()) {
        (LedgerHome::Memory, false) => {
            format!("Ledger: in memory of {names}; proxies that lease: {proxies}.")
        }
        (LedgerHome::Redis, false) => {
            format!("Ledger: in Redis, by {names}; proxies that lease: {proxies}.")
        }
        (LedgerHome::Memory, true) => "Ledger: nobody who was asked keeps it.".to_owned(),
        (LedgerHome::Redis, true) => "Ledger: Redis is away.".to_owned(),
    };
    match answer.fallback_active {
        true => format!("{at} Fallback active: limits do as their onUnavailable says."),
        false => format!("{at} Fallback not active."),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn often(per_second: f64) -> String {
    match per_second {
        rare if rare < 0.005 => "0".to_owned(),
        some if some < 10.0 => format!("{some:.2}/s"),
        many => format!("{many:.0}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::limits::LedgerState;

    fn used(share: f64, tokens: f64, refused: f64) -> Use {
        Use {
            share,
            tokens,
            refused,
        }
    }

    fn page(leases: Option<bool>, keys: &[(&str, Use)]) -> Page {
        let busiest = keys.iter().map(|(_, used)| used.share).fold(0.0, f64::max);
        let top = keys.iter().map(|(key, used)| KeyRow {
            key: (*key).to_owned(),
            used: *used,
        });
        let row = Row {
            limit: "shop/calls/0".to_owned(),
            rate: "10/second".to_owned(),
            scope: "global".to_owned(),
            used: leases.map(|_| Use {
                share: busiest,
                tokens: keys.iter().map(|(_, used)| used.tokens).sum(),
                refused: keys.iter().map(|(_, used)| used.refused).sum(),
            }),
            keys: leases.map(|_| keys.len()),
            top: top.collect(),
            ..Row::default()
        };
        Page {
            ledger: LedgerState {
                home: LedgerHome::Redis,
                leases,
                proxies: 2,
            },
            limits: vec![row],
        }
    }

    fn of(pages: &[Page], top: usize) -> Answer {
        let names = ["a", "b", "c"].map(str::to_owned);
        let pages = names.into_iter().zip(pages.iter().cloned().map(Ok));
        answer(pages.collect(), top).expect("somebody answers")
    }

    #[test]
    fn what_replicas_of_one_redis_say_is_put_together() {
        let both = of(
            &[
                page(
                    Some(true),
                    &[("ada", used(0.4, 4.0, 0.0)), ("bob", used(0.3, 3.0, 0.0))],
                ),
                page(
                    Some(true),
                    &[("ada", used(0.5, 5.0, 1.0)), ("cyd", used(0.6, 6.0, 0.0))],
                ),
                page(None, &[]),
            ],
            2,
        );
        let limit = &both.limits[0];
        let top: Vec<_> = limit.top.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(top, ["ada", "cyd"]);
        let all = limit.used.expect("known");
        assert!((all.share - 0.9).abs() < 0.001, "{all:?}");
        assert!((all.tokens - 18.0).abs() < 0.001, "{all:?}");
        assert_eq!(limit.keys, Some(4));
        assert!(!both.fallback_active);
        assert_eq!(
            ledger(&both),
            "Ledger: in Redis, by a, b; proxies that lease: 4. Fallback not active."
        );

        let empty = [
            page(Some(true), &[("ada", used(1.0, 5.0, 3.0))]),
            page(Some(true), &[("ada", used(0.9, 5.0, 3.0))]),
        ];
        let all = of(&empty, 3).limits[0].used.expect("known");
        assert!((all.share - 1.0).abs() < 0.001, "no more than there is");
    }

    #[test]
    fn a_replica_that_is_silent_hides_no_other() {
        let silent = || ("b".to_owned(), Err(anyhow::anyhow!("gone")));
        let one = ("a".to_owned(), Ok(page(Some(true), &[])));
        let found = answer(vec![silent(), one], 3).expect("one answers");
        assert_eq!(found.silent, ["b: gone"]);
        assert_eq!(found.limits.len(), 1);
        assert!(answer(vec![silent()], 3).is_err(), "nobody answers");
    }

    #[test]
    fn without_a_ledger_that_leases_there_is_a_fallback() {
        for (leases, expected) in [(Some(true), false), (Some(false), true), (None, true)] {
            let found = of(&[page(leases, &[])], 3);
            assert_eq!(found.fallback_active, expected, "{leases:?}");
        }
        let mut local = page(None, &[]);
        local.limits[0].scope = "local".to_owned();
        assert!(!of(&[local], 3).fallback_active, "nobody needs it");
    }
}

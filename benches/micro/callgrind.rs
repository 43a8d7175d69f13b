//! One case, in a process of its own under valgrind's callgrind, which counts instructions inside one function.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::cases::RUNS;

/// Why nothing can be counted.
pub(crate) fn missing() -> Option<&'static str> {
    let found = Command::new("valgrind").arg("--version").output();
    match found {
        Ok(output) if output.status.success() => None,
        Ok(_) | Err(_) => Some("there is no valgrind to count instructions with"),
    }
}

/// Instructions of one run of the case.
pub(crate) fn count(case: &str) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .args([
            "--toggle-collect=*counted_by_callgrind*",
            "--callgrind-out-file=/dev/null",
        ])
        .arg(std::env::current_exe()?)
        .args(["--one", case])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{case}: {said}");
    let collected = said
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1));
    let collected: u64 = collected
        .with_context(|| format!("valgrind counted nothing: {said}"))?
        .trim()
        .parse()?;
    Ok(collected as f64 / RUNS as f64)
}

//! How long it takes to make what a network is made of, by each engine's client.

use super::site::Site;
use crate::{Result, shell};
use std::time::{Duration, Instant};

/// How often each thing is done.
const ROUNDS: usize = 20;

/// What is left to the kernel between two measurements.
const REST: Duration = Duration::from_millis(200);

/// How many containers are started on one network.
const CONTAINERS: usize = 1000;

/// Of them, those whose times are compared: the first and the last.
const COMPARED: usize = 50;

/// Times networks, connections and starts of every engine, in turns.
pub(super) fn run(sites: &[Site]) -> Result<()> {
    let makers: Vec<&Site> = sites.iter().filter(|site| !site.is_bare()).collect();
    let titles = [
        "network create",
        "network connect",
        "start, no network",
        "start, bridge",
    ];
    let mut times = vec![vec![Vec::new(); titles.len()]; makers.len()];
    for _ in 0..ROUNDS {
        for (site, times) in makers.iter().zip(&mut times) {
            for (took, times) in once(site)?.into_iter().zip(times) {
                times.push(took);
            }
        }
    }
    let medians = times
        .iter_mut()
        .map(|times| times.iter_mut().map(|times| median_ms(times)));
    let medians: Vec<Vec<f64>> = medians.map(Iterator::collect).collect();
    for (column, title) in titles.iter().enumerate() {
        shell::print(&format!("\n{title}"));
        for (site, medians) in makers.iter().zip(&medians) {
            let median = medians[column];
            shell::print(&format!("  {:24} median {median:8.2} ms", site.name));
        }
    }
    shell::print("\nstart: bridge less no network");
    for (site, medians) in makers.iter().zip(&medians) {
        let more = medians[3] - medians[2];
        shell::print(&format!("  {:24} {more:8.2} ms", site.name));
    }
    Ok(())
}

/// Each thing once: how long it takes.
fn once(site: &Site) -> Result<Vec<Duration>> {
    let timed = |arguments: &[&str]| {
        // What was removed before the kernel takes away a while later, and whoever makes a link waits for that.
        std::thread::sleep(REST);
        let started = Instant::now();
        site.run(arguments)?;
        Ok::<_, String>(started.elapsed())
    };
    let sleep = ["--stop-timeout", "0", "busybox", "sleep", "60"];
    let mut took = vec![
        timed(&["network", "create", "passing"])?,
        timed(&["network", "connect", "passing", "client"])?,
    ];
    site.run(&["network", "disconnect", "passing", "client"])?;
    site.run(&["network", "rm", "passing"])?;
    for network in ["none", "measured"] {
        site.run(
            &[
                &["create", "--name", "passing", "--network", network],
                &sleep[..],
            ]
            .concat(),
        )?;
        took.push(timed(&["start", "passing"])?);
        site.run(&["rm", "-f", "passing"])?;
    }
    Ok(took)
}

/// Starts many containers on one network.
pub(super) fn many(site: &Site) -> Result<()> {
    let mut times = Vec::new();
    let names: Vec<String> = (0..CONTAINERS)
        .map(|number| format!("many{number}"))
        .collect();
    for name in &names {
        let started = Instant::now();
        site.run(&[
            "run",
            "-d",
            "--network",
            "measured",
            "--name",
            name,
            "busybox",
            "sleep",
            "3600",
        ])?;
        times.push(started.elapsed());
    }
    let last = median_ms(&mut times.split_off(CONTAINERS - COMPARED));
    let first = median_ms(&mut times[..COMPARED]);
    shell::print(&format!(
        "\n{CONTAINERS} containers on one network, {}: run -d of the last {COMPARED} takes {:.2} of the first {COMPARED}",
        site.name,
        last / first
    ));
    for names in names.chunks(COMPARED) {
        let names = names.iter().map(String::as_str);
        site.run(&["rm", "-f"].into_iter().chain(names).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

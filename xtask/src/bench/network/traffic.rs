//! How much gets through a network: iperf3's streams, and wrk's requests to nginx.
//!
//! Every site in turns, the best of the rounds of each: what else the machine does only takes away from it.

use super::site::{PORTS, Site, Way};
use crate::bench::engines::TemporaryDirectory;
use crate::{Result, shell};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Seconds of each measurement.
const SECONDS: &str = "2";

/// How long a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A web server that answers out of its memory.
const NGINX: &str = "daemon off; worker_processes 1; pid PID; error_log /dev/null crit;
events { worker_connections 1024; }
http { access_log off; server { listen 8080 backlog=4096; location / { return 200 \"ok\"; } } }
";

/// A program that serves as long as the value lasts.
struct Server(Child);

impl Server {
    /// Starts it, and waits until it listens.
    fn start(site: &Site, mut command: Command, port: u16) -> Result<Self> {
        site.server.inside(|| {
            let child = command.spawn().map_err(|error| error.to_string())?;
            let server = Self(child);
            let deadline = Instant::now() + START_TIMEOUT;
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                if Instant::now() > deadline {
                    return Err(format!("{}: no server listens on {port}", site.name));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(server)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that what it has started ends with it.
        let ended = Command::new("kill").arg(self.0.id().to_string()).status();
        if ended.is_err() || self.0.wait().is_err() {
            shell::say("a server cannot be ended");
        }
    }
}

/// A figure of which more is better, of one way at one site.
type Measure<'a> = &'a dyn Fn(&Site, Way) -> Result<Vec<f64>>;

/// Measures everything there is a program for.
pub(super) fn run(sites: &[Site], rounds: usize) -> Result<()> {
    if shell::is_installed("iperf3") {
        let iperf3 = || {
            let mut command = shell::quiet("iperf3");
            command.arg("-s");
            command
        };
        let _servers = serve(sites, PORTS[0], iperf3)?;
        for streams in ["1", "8"] {
            let titles = ["Gbit/s", "Gbit for each second of CPU"];
            let titles = titles.map(|title| format!("{title}, {streams} streams"));
            let titles = titles.each_ref().map(String::as_str);
            table(sites, rounds, &titles, &|site, way| {
                streams_of(site, way, streams)
            })?;
        }
    } else {
        shell::print("streams: iperf3 is not installed");
    }
    if !shell::is_installed("wrk") || !shell::is_installed("nginx") {
        shell::print("requests: wrk or nginx is not installed");
        return Ok(());
    }
    let directory = TemporaryDirectory::new("nginx-bench")?;
    let pid = directory.path.join("pid").display().to_string();
    let configuration = directory.path.join("nginx.conf");
    std::fs::write(&configuration, NGINX.replace("PID", &pid)).map_err(|e| e.to_string())?;
    let nginx = || {
        let mut command = shell::quiet("nginx");
        command.arg("-c").arg(&configuration);
        command
    };
    let _servers = serve(sites, PORTS[1], nginx)?;
    let kept = [
        "requests/s",
        "1/s of the median latency",
        "1/s of the 99th percentile",
    ];
    table(sites, rounds, &kept, &|site, way| requests(site, way, &[]))?;
    let closed = ["connections/s"];
    table(sites, rounds, &closed, &|site, way| {
        Ok(requests(site, way, &["-H", "Connection: close"])?[..1].to_vec())
    })
}

fn serve(sites: &[Site], port: u16, command: impl Fn() -> Command) -> Result<Vec<Server>> {
    let start = |site| Server::start(site, command(), port);
    sites.iter().map(start).collect()
}

/// Prints the best of each site, and its ratio to the first site and to the best that is not hull's.
fn table(sites: &[Site], rounds: usize, titles: &[&str], measure: Measure<'_>) -> Result<()> {
    for way in Way::ALL {
        let mut best = vec![vec![0.0_f64; titles.len()]; sites.len()];
        for _ in 0..rounds {
            for (site, best) in sites.iter().zip(&mut best) {
                for (figure, best) in measure(site, way)?.into_iter().zip(best) {
                    *best = best.max(figure);
                }
            }
        }
        for (column, title) in titles.iter().enumerate() {
            shell::print(&format!("\n{}: {title}", way.title()));
            for (site, best_of) in sites.iter().zip(&best) {
                let ratio = best_of[column] / best[0][column];
                let figure = best_of[column];
                shell::print(&format!(
                    "  {:24} {figure:10.1}  {ratio:.3} of bare",
                    site.name
                ));
            }
        }
    }
    Ok(())
}

/// Runs a client; returns what it says.
fn ask(site: &Site, way: Way, command: impl Fn(&str) -> Command + Sync) -> Result<String> {
    let (from, address) = site.by(way);
    let output = from.inside(|| command(address).output().map_err(|error| error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{}, {}: {said}", site.name, way.title()))
}

/// What was received, and that for the time that both programs had the CPU: what else the machine does takes little of that.
fn streams_of(site: &Site, way: Way, streams: &str) -> Result<Vec<f64>> {
    let output = ask(site, way, |address| {
        let mut command = Command::new("iperf3");
        command.args(["-J", "-c", address, "-t", SECONDS, "-P", streams]);
        command
    })?;
    let result: serde_json::Value =
        serde_json::from_str(&output).map_err(|error| format!("iperf3: {error}"))?;
    let received = result["end"]["sum_received"]["bits_per_second"].as_f64();
    let received = received.ok_or_else(|| format!("iperf3, {}: {}", site.name, result["error"]))?;
    let used = &result["end"]["cpu_utilization_percent"];
    let percent = used["host_total"]
        .as_f64()
        .zip(used["remote_total"].as_f64());
    let (own, other) = percent.ok_or("iperf3 tells nothing of the CPU")?;
    let gigabits = received / 1e9;
    Ok(vec![gigabits, gigabits * 100.0 / (own + other)])
}

/// Requests per second, and how often the median and the 99th percentile of their times fit in one.
fn requests(site: &Site, way: Way, arguments: &[&str]) -> Result<Vec<f64>> {
    let port = PORTS[1];
    let output = ask(site, way, |address| {
        let mut command = Command::new("wrk");
        command
            .args(["-t1", "-c16", "-d", SECONDS, "--latency"])
            .args(arguments);
        command.arg(format!("http://{address}:{port}/"));
        command
    })?;
    let word = |key: &str| {
        let line = output
            .lines()
            .find(|line| line.trim_start().starts_with(key));
        line.and_then(|line| line.split_whitespace().last())
            .ok_or_else(|| format!("wrk, {}: {output}", site.name))
    };
    let rate = word("Requests/sec:")?
        .parse::<f64>()
        .map_err(|error| format!("wrk: {error}"))?;
    Ok(vec![
        rate,
        1.0 / seconds(word("50%")?)?,
        1.0 / seconds(word("99%")?)?,
    ])
}

/// Reads `1.02ms`.
fn seconds(text: &str) -> Result<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let found = units
        .into_iter()
        .find_map(|(unit, seconds)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * seconds));
    found.ok_or_else(|| format!("wrk: {text:?} is no time"))
}

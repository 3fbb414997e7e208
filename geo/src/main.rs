//! `geo lookup ADDRESS...`: which region a client is in, and what says so.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use geo::{RegionId, Resolution, Resolver, Topology, resolver::Sources};

/// Which region a client is in, by the evidence that the daemons use.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the regions that serve each address, best first, and why.
    Lookup(Lookup),
}

#[derive(Debug, Args)]
struct Lookup {
    /// IPv4 or IPv6 addresses of clients; `-` reads them from the standard input, one a line.
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// The topology's file.
    #[arg(long, value_name = "FILE")]
    topology: PathBuf,
    /// A prefix list, lines of `prefix region` or `prefix,region`; may be given several times.
    #[arg(long, value_name = "FILE")]
    prefixes: Vec<PathBuf>,
    /// A city or country file in MaxMind's format.
    #[arg(long, value_name = "FILE")]
    geoip: Option<PathBuf>,
    /// The region of a country, for a geoip file without positions; may be given several times.
    #[arg(long = "country", value_name = "CODE=REGION")]
    countries: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Command::Lookup(lookup) = Arguments::parse().command;
    match run(lookup) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("geo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(lookup: Lookup) -> anyhow::Result<String> {
    let file = lookup.topology.display().to_string();
    let text = std::fs::read_to_string(&lookup.topology).with_context(|| file.clone())?;
    let topology = Topology::parse(&text).with_context(|| file)?;
    let countries = lookup.countries.iter().map(|pair| country(pair)).collect::<anyhow::Result<_>>()?;
    let sources = Sources { prefixes: lookup.prefixes, geoip: lookup.geoip, countries };
    let resolver = Resolver::load(&sources, &topology)?;
    let addresses = addresses(lookup.addresses)?;
    let mut answers = Vec::with_capacity(addresses.len());
    for address in &addresses {
        let parsed: IpAddr = address.parse().with_context(|| format!("{address:?}: give 192.0.2.1 or 2001:db8::1"))?;
        answers.push((address.as_str(), resolver.resolve(parsed)));
    }
    if lookup.json { json(&answers) } else { Ok(table(&answers)) }
}

/// The addresses asked about, those of the standard input in the place of `-`.
fn addresses(told: Vec<String>) -> anyhow::Result<Vec<String>> {
    let mut addresses = Vec::with_capacity(told.len());
    for address in told {
        if address != "-" {
            addresses.push(address);
            continue;
        }
        let lines = std::io::read_to_string(std::io::stdin()).context("standard input")?;
        addresses.extend(lines.split_whitespace().map(str::to_owned));
    }
    Ok(addresses)
}

fn country(pair: &str) -> anyhow::Result<(String, RegionId)> {
    let (code, region) = pair.split_once('=').with_context(|| format!("--country {pair}: give CODE=REGION, RU=4"))?;
    let region = region.parse().with_context(|| format!("--country {pair}: a region is 0..=65535"))?;
    Ok((code.to_owned(), RegionId(region)))
}

fn json(answers: &[(&str, Resolution)]) -> anyhow::Result<String> {
    let object = |(address, found): &(&str, Resolution)| {
        let (regions, evidence) = (&found.regions, found.evidence.to_string());
        serde_json::json!({"address": address, "regions": regions, "evidence": evidence})
    };
    Ok(serde_json::to_string_pretty(&answers.iter().map(object).collect::<Vec<_>>())?)
}

fn table(answers: &[(&str, Resolution)]) -> String {
    let mut rows = vec![["ADDRESS", "REGIONS", "EVIDENCE"].map(str::to_owned)];
    for (address, resolution) in answers {
        let regions: Vec<String> = resolution.regions.iter().map(ToString::to_string).collect();
        rows.push([(*address).to_owned(), regions.join(" "), resolution.evidence.to_string()]);
    }
    let [first, second] = [0, 1].map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let lines: Vec<String> = rows.iter().map(|[a, r, e]| format!("{a:first$}  {r:second$}  {e}")).collect();
    lines.join("\n")
}

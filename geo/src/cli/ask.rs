//! Who is asked: a server that runs, files of its config, or a table.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;

use daemon::config::variable;

use super::{Asked, LookupArgs};
use crate::answer::Answer;
use crate::client::{Client, Server, TABLE_BYTES_MAX, Whole};
use crate::engine::{Engine, Loaded};
use crate::file;
use crate::resolver::{Resolver, Sources};
use crate::serve::{self, Config, report};
use crate::table::{Stamp, Table, Writer};
use crate::wire::{ADDRESSES_MAX, Resolved};

/// A question to whoever knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Explain(IpAddr),
    Audit,
    Stats,
}

/// Asks a server, or the engine over the files of its config.
pub(super) fn ask(asked: &Asked, question: Question, json: bool) -> anyhow::Result<Answer> {
    if let Some(config) = &asked.config {
        let engine = engine(config)?;
        return Ok(match question {
            Question::Explain(address) => report::explanation(&engine.explain(address)),
            Question::Audit => report::audit(&engine.audit(Instant::now())),
            Question::Stats => report::stats(&engine.stats(Instant::now())),
        });
    }
    let client = client(asked.server.as_deref(), asked.token_file.as_deref())?
        .ok_or_else(|| super::lacks("who is asked? Say --server URL, set SUN_GEO, or say --config FILE"))?;
    waiting(async {
        Ok(match question {
            Question::Explain(address) => client.told(&["explain", &address.to_string()], json).await?,
            Question::Audit => client.told(&["audit"], json).await?,
            Question::Stats => client.told(&["stats"], json).await?,
        })
    })
}

/// The regions of addresses, from whatever was named.
pub(super) fn lookup(args: &LookupArgs) -> anyhow::Result<Answer> {
    let (addresses, wrong) = sorted_out(&named(&args.addresses)?);
    let answers = resolved(args, &addresses)?;
    let mut answer = report::resolved(&answers);
    for why in &wrong {
        eprintln!("geo: {why}");
        // What is no address has no answer, and is in its place at the end.
        if let Some(all) = answer.json.as_array_mut() {
            all.push(serde_json::json!({ "error": why }));
        }
    }
    if answers.is_empty() {
        answer.text.clear();
    }
    answer.good = wrong.is_empty();
    Ok(answer)
}

/// The addresses among what was told, and what is wrong with the rest.
fn sorted_out(told: &[Named]) -> (Vec<IpAddr>, Vec<String>) {
    let (mut addresses, mut wrong) = (Vec::with_capacity(told.len()), Vec::new());
    for Named { line, text } in told {
        match address(text) {
            Ok(address) => addresses.push(address),
            Err(why) => {
                let place = line.map_or(String::new(), |line| format!("line {line}: "));
                wrong.push(format!("{place}{text:?}: {why}"));
            }
        }
    }
    (addresses, wrong)
}

/// An address of the command line or of a line.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "give an address, 192.0.2.1 or 2001:db8::1".to_owned())
}

/// Asks whoever was named.
fn resolved(args: &LookupArgs, addresses: &[IpAddr]) -> anyhow::Result<Vec<Resolved>> {
    if !is_local(args)
        && let Some(client) = client(args.asked.server.as_deref(), args.asked.token_file.as_deref())?
    {
        return waiting(async {
            let mut answers = Vec::with_capacity(addresses.len());
            for some in addresses.chunks(ADDRESSES_MAX) {
                answers.append(&mut client.resolve(some.to_vec()).await?.answers);
            }
            Ok(answers)
        });
    }
    let resolver = resolver(args)?;
    let answer = |address: &IpAddr| {
        let resolution = resolver.resolve(*address);
        Resolved { address: *address, regions: resolution.regions.to_vec(), evidence: resolution.evidence.to_string() }
    };
    Ok(addresses.iter().map(answer).collect())
}

/// Whether files are named: then a server in the environment is not asked, whose answer would be of another source.
fn is_local(args: &LookupArgs) -> bool {
    let LookupArgs { addresses: _, asked, table, topology, prefixes, geoip, countries } = args;
    let one = asked.config.is_some() || table.is_some() || topology.is_some();
    one || !(prefixes.is_empty() && geoip.is_empty() && countries.is_empty())
}

/// What is asked about.
#[derive(Debug)]
struct Named {
    /// Of the standard input.
    line: Option<usize>,
    text: String,
}

/// What is asked about, with the standard input in the place of `-`.
fn named(told: &[String]) -> anyhow::Result<Vec<Named>> {
    let mut all = Vec::with_capacity(told.len());
    for text in told {
        if text == "-" {
            let lines = std::io::read_to_string(std::io::stdin()).context("standard input")?;
            let words = |(number, line)| str::split_whitespace(line).map(move |word| (number, word));
            let words = (1..).zip(lines.lines()).flat_map(words);
            all.extend(words.map(|(number, word)| Named { line: Some(number), text: word.to_owned() }));
        } else {
            all.push(Named { line: None, text: text.clone() });
        }
    }
    Ok(all)
}

fn resolver(args: &LookupArgs) -> anyhow::Result<Arc<Resolver>> {
    if let Some(config) = &args.asked.config {
        return Ok(engine(config)?.resolver().load_full());
    }
    let source = crate::cli::topology(args.topology.as_ref())?;
    let source = source.ok_or_else(|| {
        super::lacks(match args.table {
            Some(_) => "a table has no regions of its own: say --topology FILE or set SUN_TOPOLOGY",
            None => "who is asked? Say --server URL, --config FILE or --topology FILE",
        })
    })?;
    let topology = source.load().map_err(anyhow::Error::msg)?;
    if let Some(path) = &args.table {
        let (writer, _) = table(path)?;
        return Ok(Arc::new(Resolver::new(Arc::clone(writer.table()), crate::regions::Regions::of(&topology))));
    }
    let countries = args.countries.iter().cloned().collect();
    let (prefixes, geoip) = (args.prefixes.clone(), args.geoip.clone());
    let sources = Sources { prefixes, geoip, countries, ..Sources::default() };
    Ok(Arc::new(Resolver::load(&sources, &topology)?))
}

/// The engine over the files of a server's config; nobody hears routers here.
pub(super) fn engine(file: &Path) -> anyhow::Result<Engine> {
    let config: Config = daemon::config::load(file)?;
    let problems = config.problems();
    anyhow::ensure!(problems.is_empty(), "{}: {}", file.display(), problems.join("\n"));
    let topology = config.topology.load().map_err(anyhow::Error::msg)?;
    let mut inputs = config.inputs();
    inputs.feeds.clear();
    let loaded = Loaded::read(&inputs, &topology)?;
    Ok(Engine::start(loaded, None, serve::epoch(), Instant::now()))
}

/// A table's file, or that of a server.
pub(super) fn table_of(named: &str, token_file: Option<&Path>) -> anyhow::Result<Arc<Table>> {
    if !named.contains("://") {
        return Ok(Arc::clone(table(Path::new(named))?.0.table()));
    }
    let client = client(Some(named), token_file)?.context("a server has an address")?;
    let whole = waiting(async { Ok(client.table(None).await?) })?;
    let Whole::New(bytes) = whole else { anyhow::bail!("{named}: it gave no table") };
    let (writer, _) = Writer::decode(&bytes).with_context(|| named.to_owned())?;
    Ok(Arc::clone(writer.table()))
}

fn table(path: &Path) -> anyhow::Result<(Writer, Stamp)> {
    let about = || format!("table {}", path.display());
    let bytes = file::read_bounded(path, TABLE_BYTES_MAX as u64).with_context(about)?;
    Writer::decode(&bytes).with_context(about)
}

/// The server that is named on the command line or in the environment.
fn client(server: Option<&str>, token_file: Option<&Path>) -> anyhow::Result<Option<Client>> {
    let Some(url) = server.map(str::to_owned).or_else(|| variable("SUN_GEO")) else { return Ok(None) };
    let token_file = token_file.map(Path::to_owned).or_else(|| variable("SUN_TOKEN_FILE").map(PathBuf::from));
    let token_file =
        token_file.ok_or_else(|| super::lacks("whose token? Say --token-file FILE or set SUN_TOKEN_FILE"))?;
    Ok(Some(Client::new(&Server { url, token_file })?))
}

/// Runs what waits for the network.
fn waiting<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_address_is_told_and_the_rest_is_answered() {
        let named = |line, text: &str| Named { line, text: text.to_owned() };
        let told = [named(Some(1), "192.0.2.1"), named(Some(2), "192.0.2"), named(None, "x"), named(Some(4), "::1")];
        let (addresses, wrong) = sorted_out(&told);
        assert_eq!(addresses, ["192.0.2.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        let advice = "give an address, 192.0.2.1 or 2001:db8::1";
        assert_eq!(wrong, [format!("line 2: \"192.0.2\": {advice}"), format!("\"x\": {advice}")]);
    }
}

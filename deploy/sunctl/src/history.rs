//! `sunctl history`: the tables of the history of downloads, made, filled again and emptied. The popularity API's config
//! says where ClickHouse is.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use geo::answer::Answer;
use popularity_api::history::clickhouse::{Access, ClickHouseError, statements};
use popularity_api::history::spool;
use popularity_api::server::Config;
use serde_json::json;

/// What to do with the tables.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the tables; what is there stays.
    Init {
        #[command(flatten)]
        api: ApiConfig,
        /// Days after which rows go by themselves; 0: they stay. A server older than 19.6 cannot: then `delete` does it.
        #[arg(long, default_value_t = 90)]
        days: u16,
    },
    /// Insert again what an API kept on its disk, of batches that were sent and of those that were not. What is in the
    /// tables already is not doubled. An API that runs sends by itself what was not sent.
    Fill {
        #[command(flatten)]
        api: ApiConfig,
        /// An API's folder of the history. Default `history` in the config's `data`.
        folder: Option<PathBuf>,
    },
    /// Drop whole days, or the tables with everything in them.
    Delete {
        #[command(flatten)]
        api: ApiConfig,
        #[command(flatten)]
        what: What,
        /// Without asking.
        #[arg(long)]
        yes: bool,
    },
}

/// Which API's history it is.
#[derive(Debug, Args)]
pub(crate) struct ApiConfig {
    /// The popularity API's config, with `url` in its [history].
    #[arg(long, value_name = "FILE", default_value = "/etc/sun/popularity-api.toml")]
    config: PathBuf,
}

/// What is to be deleted.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct What {
    /// Days before this one (UTC), 2026-11-21.
    #[arg(long, value_name = "DAY", value_parser = day)]
    before: Option<u32>,
    /// The table.
    #[arg(long)]
    all: bool,
}

/// Does it. `asked` shows a question to who is at the terminal.
///
/// # Errors
///
/// When the config names no ClickHouse, that does not answer or refuses, or files cannot be read.
pub(crate) async fn run(command: &Command, asked: impl FnOnce(&str) -> anyhow::Result<bool>) -> anyhow::Result<Answer> {
    match command {
        Command::Init { api, days } => init(&api.access()?.1, *days).await,
        Command::Fill { api, folder } => {
            let (config, access) = api.access()?;
            let folder = folder.clone().unwrap_or_else(|| config.data.join("history"));
            fill(&access, &folder).await
        }
        Command::Delete { api, what, yes } => {
            let (_, access) = api.access()?;
            let days = if what.all { Vec::new() } else { days_before(&access, what.before.unwrap_or(0)).await? };
            let question = if what.all {
                format!("{}.downloads goes, with everything in it", access.database())
            } else if days.is_empty() {
                return Ok(Answer::good("no such day is there\n".to_owned(), json!({ "days": days })));
            } else {
                format!("days go: {} ({} to {})", days.len(), days[0], days[days.len() - 1])
            };
            if !yes && !asked(&question)? {
                return Ok(Answer::good("nothing was deleted\n".to_owned(), json!({ "days": [] })));
            }
            delete(&access, what.all, &days).await
        }
    }
}

async fn init(access: &Access, days: u16) -> anyhow::Result<Answer> {
    for statement in statements(TABLES) {
        access.ask(&of(access, &statement)).await?;
    }
    let made = format!("{}.downloads is there", access.database());
    if days == 0 {
        return Ok(Answer::good(format!("{made}\n"), json!({ "days": null })));
    }
    for statement in statements(TTL) {
        match access.ask(&of(access, &statement).replace("90", &days.to_string())).await {
            Ok(_) => {}
            // A syntax error: an old server does not know the word.
            Err(ClickHouseError::Refused { said, .. }) if said.contains("Syntax error") => {
                let text = format!(
                    "{made}; this server cannot let rows go by themselves (19.6 or newer can): let a timer run \
                     sunctl history delete --before DAY --yes\n"
                );
                return Ok(Answer::good(text, json!({ "days": null })));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Answer::good(format!("{made}; rows go after {days} days\n"), json!({ "days": days })))
}

async fn fill(access: &Access, folder: &Path) -> anyhow::Result<Answer> {
    let kept = spool::kept(folder).with_context(|| format!("{}", folder.display()))?;
    let (mut batches, mut rows, mut damaged) = (0_u64, 0_u64, Vec::new());
    for (path, batch) in kept {
        let lines = match spool::read(&path, &batch) {
            Ok(lines) => lines,
            // An API that runs moves and removes files meanwhile.
            Err(spool::ReadError::Gone) => continue,
            Err(error) => {
                damaged.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        access.insert(lines).await.with_context(|| format!("{} after {rows} rows", path.display()))?;
        batches += 1;
        rows += batch.rows;
    }
    let mut text = format!("{rows} rows in {batches} batches were inserted\n");
    damaged.iter().for_each(|line| text.push_str(&format!("left out: {line}\n")));
    let json = json!({ "rows": rows, "batches": batches, "damaged": damaged });
    Ok(if damaged.is_empty() { Answer::good(text, json) } else { Answer { good: false, ..Answer::good(text, json) } })
}

/// The partitions before a day, 20261121.
async fn days_before(access: &Access, before: u32) -> anyhow::Result<Vec<u32>> {
    let database = access.database();
    let statement = format!(
        "SELECT DISTINCT toUInt32(partition) AS day FROM system.parts WHERE database = '{database}' \
         AND table = 'downloads' AND active AND day < {before} ORDER BY day FORMAT TabSeparated"
    );
    let said = access.ask(&statement).await?;
    said.lines().map(|line| line.parse().with_context(|| format!("ClickHouse named a partition {line:?}"))).collect()
}

async fn delete(access: &Access, all: bool, days: &[u32]) -> anyhow::Result<Answer> {
    let table = format!("{}.downloads", access.database());
    if all {
        access.ask(&format!("DROP TABLE IF EXISTS {table}")).await?;
        return Ok(Answer::good(format!("{table} is gone\n"), json!({ "all": true })));
    }
    for day in days {
        access.ask(&format!("ALTER TABLE {table} DROP PARTITION {day}")).await?;
    }
    Ok(Answer::good(format!("days gone: {}\n", days.len()), json!({ "days": days })))
}

impl ApiConfig {
    fn access(&self) -> anyhow::Result<(Config, Access)> {
        let config: Config = daemon::config::load(&self.config)?;
        let access = config.history.access()?;
        let access = access.with_context(|| format!("{}: [history] has no url", self.config.display()))?;
        Ok((config, access))
    }
}

/// A day as the table's partitions are called: 2026-11-21 is 20261121.
fn day(text: &str) -> Result<u32, String> {
    let parts: Vec<Option<u32>> = text.split('-').map(|part| part.parse().ok()).collect();
    match (text.len(), &parts[..]) {
        (10, &[Some(year), Some(month @ 1..=12), Some(day @ 1..=31)]) => Ok(year * 10_000 + month * 100 + day),
        _ => Err("a day is written 2026-11-21".to_owned()),
    }
}

/// The statement with the config's database.
fn of(access: &Access, statement: &str) -> String {
    let database = access.database();
    let words = statement.split(' ').map(|word| match word.strip_prefix("sun") {
        Some("") => database.to_owned(),
        Some(rest) if rest.starts_with('.') => format!("{database}{rest}"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What `init` carries out.
const TABLES: &str = include_str!("../../clickhouse/tables.sql");
/// As well, on servers that can.
const TTL: &str = include_str!("../../clickhouse/ttl.sql");

#[cfg(test)]
mod tests {
    use popularity_api::history::buffer::Row;

    use super::*;

    #[test]
    fn statements_have_no_comments_and_their_own_database() {
        let access = Access::new("http://127.0.0.1:1", "cdn_2", "default", None, 1).unwrap();
        let made: Vec<_> = statements(TABLES).iter().map(|statement| of(&access, statement)).collect();
        assert_eq!(made.len(), 2);
        assert_eq!(made[0], "CREATE DATABASE IF NOT EXISTS cdn_2");
        assert!(made[1].starts_with("CREATE TABLE IF NOT EXISTS cdn_2.downloads\n(\n    at "), "{}", made[1]);
        let ttl = of(&access, &statements(TTL)[0]);
        assert_eq!(ttl, "ALTER TABLE cdn_2.downloads MODIFY TTL at + INTERVAL 90 DAY");
    }

    #[test]
    fn the_table_has_the_columns_of_a_row() {
        let row = Row {
            at: 0,
            batch: 0,
            region: 0,
            source: String::new(),
            content_server: 0,
            file: String::new(),
            size: 0,
            downloads: 0.0,
            bytes: 0,
        };
        let row = serde_json::to_value(&row).unwrap();
        let made = statements(TABLES).remove(1);
        let columns: Vec<&str> = made
            .lines()
            .filter(|line| line.starts_with("    "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(columns.len(), fields.len());
        fields.retain(|field| !columns.contains(field));
        assert_eq!(fields, [] as [&str; 0]);
    }

    #[test]
    fn a_day_is_a_partition() {
        for (text, expected) in [
            ("2026-11-21", Some(20_261_121)),
            ("2026-1-21", None),
            ("2026-13-01", None),
            ("20261121", None),
            ("2026-11-2x", None),
            ("", None),
        ] {
            assert_eq!(day(text).ok(), expected, "{text}");
        }
    }
}

//! What is to be purged, as it is said: a file, a folder, a tag, a link, or a URL of a site.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use daemon::config::variable;
use geo::answer::Answer;
use geo::topology::Site;
use geo::{CanonicalName, RegionId, Topology};
use popularity_api::purge::Target;
use popularity_api::wire::{PurgeMode, PurgeWhat};

use super::locate::{file_name, path_of};
use super::sources::{ApiArgs, TopologyArgs};
use super::waiting;
use crate::purge::{self, Order};

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    what: PurgeTarget,
    /// Keep it as a stale copy: it is revalidated before it is served, and served if the content server is down.
    #[arg(long)]
    soft: bool,
    /// Only in this region.
    #[arg(long, value_name = "NUMBER")]
    region: Option<u16>,
    /// How long to wait for all servers, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait: u64,
    /// Not through the log, as if the API were away.
    #[arg(long)]
    direct: bool,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    topology: TopologyArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PurgeTarget {
    /// One file, c100500/path/to/a.jpg; a link to it will do, and with a topology also a URL of one of its sites,
    /// <https://cdn.example.org/list?page=2>.
    file: Option<String>,
    /// A folder and everything below, c100500/path/; a link to it will do, and with a topology also a site's URL, which
    /// stands for that folder of the site's content server.
    #[arg(long, value_name = "FOLDER")]
    prefix: Option<String>,
    /// Everything whose Cache-Tag or Surrogate-Key has this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Everything there is: all of it is fetched anew from the content servers.
    #[arg(long)]
    all: bool,
}

impl PurgeArgs {
    pub(super) fn answer(&self) -> anyhow::Result<Answer> {
        // While there is an API it is needed for sites' URLs alone, and for the direct way should the API be away.
        let topology = if self.direct { Some(self.topology.read()?) } else { self.topology.read().ok() };
        let order = Order {
            id: purge::id(&mut rand::rng()),
            target: self.what.checked(topology.as_ref())?,
            mode: if self.soft { PurgeMode::Soft } else { PurgeMode::Hard },
            region: self.region.map(RegionId),
            wait: Duration::from_secs(self.wait),
        };
        // What the token file is for either way.
        let token_file = self.api.token_file.clone().or_else(|| variable("SUN_TOKEN_FILE").map(PathBuf::from));
        let token_file = token_file.context("whose token? Say --token-file FILE or set SUN_TOKEN_FILE")?;
        let token = daemon::tokens::read_secret(&token_file)?;
        let api = if self.direct { None } else { Some(self.api.client()?) };
        waiting(purge::purge(&order, api.as_ref(), topology.as_ref(), &token))
    }
}

impl PurgeTarget {
    /// What clients can ask for, as far as the topology is known; the API knows it in any case.
    fn checked(&self, topology: Option<&Topology>) -> anyhow::Result<Target> {
        let target = self.target(topology)?;
        if let Some(topology) = topology {
            target.check_sites(topology)?;
        }
        Ok(target)
    }

    fn target(&self, topology: Option<&Topology>) -> anyhow::Result<Target> {
        if self.all {
            return Ok(Target::Prefix("".into()));
        }
        if let Some(tag) = &self.tag {
            return Ok(Target::parse(PurgeWhat::Tag, tag)?);
        }
        if let Some(prefix) = &self.prefix {
            if let Some((site, path, _)) = topology.and_then(|topology| site_of(topology, prefix)) {
                let folder = if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
                return Ok(Target::parse(PurgeWhat::Prefix, &format!("c{}{folder}", site.content_server))?);
            }
            let target = Target::parse(PurgeWhat::Prefix, path_of(prefix))?;
            anyhow::ensure!(
                !target.value().is_empty(),
                "an empty prefix is everything there is: say --all if you mean it"
            );
            return Ok(target);
        }
        let file = self.file.as_deref().context("what is to be purged?")?;
        if let Some((site, path, query)) = topology.and_then(|topology| site_of(topology, file)) {
            let query = query.filter(|_| !site.class_of(path).ignore_query);
            let name = CanonicalName::for_site(site.content_server, path, query)
                .with_context(|| format!("{file:?} names no file"))?;
            return Ok(Target::parse(PurgeWhat::File, name.as_str())?);
        }
        if file.contains("://") {
            let hint = if topology.is_some() { "none of the topology's sites" } else { "a site's needs --topology" };
            return file_name(file).map(Target::File).with_context(|| format!("no link, and {hint}"));
        }
        // A site's file is named with its query, c7/list?page=2.
        Ok(Target::parse(PurgeWhat::File, file)?)
    }
}

/// The site that a URL is of, with the URL's path and query; nothing when the topology has none of its host.
fn site_of<'a, 'b>(topology: &'a Topology, url: &'b str) -> Option<(&'a Site, &'b str, Option<&'b str>)> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let site = topology.site(authority.split(':').next().unwrap_or(authority))?;
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Some((site, if path.is_empty() { "/" } else { path }, query))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn what_is_purged_is_said_in_one_way() {
        check_purge(&["c1/a.jpg"], "File c1/a.jpg");
        check_purge(&["https://sun4-2-1.example.org/c1/a.jpg?sign=1"], "File c1/a.jpg");
        check_purge(&["c7/list?page=2"], "File c7/list?page=2");
        check_purge(&["--prefix", "https://sun4-2-1.example.org/c1/a/"], "Prefix c1/a/");
        check_purge(&["--prefix", "c1"], "Prefix c1/");
        check_purge(&["--tag", "news"], "Tag news");
        check_purge(&["--all"], "Prefix ");
        check_purge(&["--prefix", ""], "refused: an empty prefix is everything there is: say --all if you mean it");
        check_purge(&["--prefix", "/"], "refused: an empty prefix is everything there is: say --all if you mean it");
        check_purge(
            &["--prefix", "https://sun4-2-1.example.org"],
            "refused: an empty prefix is everything there is: say --all if you mean it",
        );
        check_purge(&["--tag", "a,b"], "refused: value: a tag has 1..=256 visible ASCII characters without a comma");
        for line in [&["purge"][..], &["purge", "c1/a", "--all"], &["purge", "--tag", "a", "--prefix", "c1"]] {
            assert!(Cli::try_parse_from(["sunctl"].iter().chain(line)).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_sites_url_is_what_its_content_server_calls_it() {
        let sites = sites();
        let check = |said: &[&str], expected| check_purge_with(Some(&sites), said, expected);
        check(&["https://cdn.example.net/list?page=2"], "File c7/list?page=2");
        check(&["http://CDN.example.net:8080/list#top"], "File c7/list");
        check(&["https://cdn.example.net/list?"], "File c7/list?");
        check(&["https://cdn.example.net"], "File c7/");
        check(&["https://cdn.example.net?a"], "File c7/?a");
        check(&["https://cdn.example.net/a/../b"], "File c7/a/../b");
        check(&["https://cdn.example.net/c1/a.jpg"], "File c7/c1/a.jpg");
        check(&["https://cdn.example.net/pictures/a.jpg?width=9"], "File c7/pictures/a.jpg");
        check(&["--prefix", "https://cdn.example.net/news"], "Prefix c7/news/");
        check(&["--prefix", "https://cdn.example.net/news/?page=2"], "Prefix c7/news/");
        check(&["--prefix", "https://cdn.example.net"], "Prefix c7/");
        check(&["https://sun4-2-1.example.org/c1/a.jpg?sign=1"], "File c1/a.jpg");
        check(&["https://other.example.net/list"], "refused: no link, and none of the topology's sites");
        check(&["https://cdn.example.net/%c3%a9"], "File c7/%c3%a9");
        check_purge(&["https://cdn.example.net/list"], "refused: no link, and a site's needs --topology");
    }

    #[test]
    fn what_only_a_site_can_have_is_refused_of_a_content_server_without_one() {
        let sites = sites();
        let refused = |value: &str, why: &str, number: u32| {
            format!(
                "refused: value: \"{value}\" names nothing that clients can ask for: {why}. Only a site's URLs are written \
                 so, and the topology has no site of content server {number}"
            )
        };
        let empty = "the path has an empty segment";
        check_purge_with(Some(&sites), &["c1//a.jpg"], &refused("c1//a.jpg", empty, 1));
        check_purge_with(Some(&sites), &["--prefix", "c1/a//b"], &refused("c1/a//b/", empty, 1));
        check_purge_with(Some(&sites), &["c7//a.jpg"], "File c7//a.jpg");
        check_purge_with(Some(&sites), &["--prefix", "c7/a//b"], "Prefix c7/a//b/");
        check_purge_with(Some(&sites), &["c1/%61.jpg"], "File c1/%61.jpg");
        check_purge_with(Some(&sites), &["--all"], "Prefix ");
    }

    #[track_caller]
    fn check_purge(said: &[&str], expected: &str) {
        check_purge_with(None, said, expected);
    }

    #[track_caller]
    fn check_purge_with(topology: Option<&Topology>, said: &[&str], expected: &str) {
        let line = ["sunctl", "purge"].iter().chain(said);
        let Command::Purge(args) = Cli::try_parse_from(line).unwrap().command else { panic!("asked to purge") };
        let answer = match args.what.checked(topology) {
            Ok(target) => format!("{:?} {}", target.what(), target.value()),
            Err(error) => format!("refused: {error}"),
        };
        assert_eq!(answer, expected, "{said:?}");
    }

    /// With a site at content server 7, whose pictures have no query.
    fn sites() -> Topology {
        Topology::parse(
            r#"
            version = 1
            domain = "example.org"
            default_region = 4
            [content_servers]
            url = "http://cs{number}.storage.example.org"
            numbers = ["1-9"]
            [[region]]
            id = 4
            name = "Moscow"
            latitude = 55.75
            longitude = 37.6
            [[site]]
            host = "cdn.example.net"
            content_server = 7
            [[site.class]]
            name = "pictures"
            paths = ["/pictures/*"]
            ignore_query = true
            "#,
        )
        .unwrap()
    }
}

//! Whom to ask: the topology's source and the popularity API, by what is said, or else by what is set.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use daemon::config::variable;
use geo::{Source, Topology};
use popularity_api::{Client, ClientConfig};

use super::waiting;
use crate::weight::Told;

#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// The topology: a file, or etcd://[USER@]HOST:PORT,HOST:PORT/KEY [env: SUN_TOPOLOGY].
    #[arg(long, value_name = "FILE")]
    pub(super) topology: Option<Source>,
    /// File with the password of etcd's USER [env: SUN_ETCD_PASSWORD_FILE].
    #[arg(long, value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// Address of the popularity API, http://10.0.0.5:8090 [env: SUN_API].
    #[arg(long, value_name = "URL")]
    pub(super) api: Option<String>,
    /// File with an operator's token for it [env: SUN_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

impl TopologyArgs {
    pub(super) fn source(&self) -> anyhow::Result<Source> {
        let set =
            || variable("SUN_TOPOLOGY").map(|text| text.parse::<Source>().map_err(anyhow::Error::msg)).transpose();
        let source = self.topology.clone().map_or_else(set, |said| Ok(Some(said)))?;
        let mut source = source.context("which topology? Say --topology FILE or set SUN_TOPOLOGY")?;
        if let Source::Etcd(etcd) = &mut source
            && etcd.user.is_some()
        {
            let set = || variable("SUN_ETCD_PASSWORD_FILE").map(PathBuf::from);
            let file = self.etcd_password_file.clone().or_else(set);
            etcd.password_file = Some(file.context("whose password? Say --etcd-password-file FILE")?);
        }
        Ok(source)
    }

    pub(crate) fn read(&self) -> anyhow::Result<Topology> {
        self.source()?.load().map_err(anyhow::Error::msg)
    }
}

impl ApiArgs {
    /// What servers tell: those of the region of one server, or all. Nothing where no API is named.
    pub(super) fn told(&self, topology: &TopologyArgs, server: Option<&str>) -> anyhow::Result<Told> {
        if self.api.is_none() && variable("SUN_API").is_none() {
            return Ok(Told::default());
        }
        let (client, topology) = (self.client()?, topology.read()?);
        let region = server.and_then(|server| topology.server(server)).map(|server| server.region);
        let regions = topology.regions.iter().map(|known| known.id).filter(|id| region.is_none_or(|only| only == *id));
        waiting(async { Ok(Told::ask(&client, regions).await) })
    }

    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let url = self.api.clone().or_else(|| variable("SUN_API"));
        let token_file = self.token_file.clone().or_else(|| variable("SUN_TOKEN_FILE").map(PathBuf::from));
        let config = ClientConfig {
            url: url.context("which popularity API? Say --api URL or set SUN_API")?,
            token_file: token_file.context("whose token? Say --token-file FILE or set SUN_TOKEN_FILE")?,
            timeout_ms: API_TIMEOUT_MS,
        };
        Ok(Client::new(&config)?)
    }
}

/// Deadline of one call, milliseconds: an operator waits longer than a daemon, but not for ever.
const API_TIMEOUT_MS: u64 = 5000;

//! Whom to ask: the topology's source and the popularity API, by what is said, or else by what is set.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use daemon::config::variable;
use geo::etcd::Etcd;
use geo::{Source, Topology};
use popularity_api::{Client, ClientConfig};

use super::waiting;
use crate::weight::Told;

#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// The topology: a file, or etcd://[USER@]HOST:PORT,HOST:PORT/KEY, with TLS etcds://... [env: SUN_TOPOLOGY].
    #[arg(long, value_name = "FILE")]
    pub(super) topology: Option<Source>,
    /// File with the password of etcd's USER [env: SUN_ETCD_PASSWORD_FILE].
    #[arg(long, value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
    /// File with the authority of the certificates of etcds:// [env: SUN_ETCD_CA].
    #[arg(long, value_name = "FILE")]
    etcd_ca: Option<PathBuf>,
    /// File with the certificate to show to a cluster that asks for one [env: SUN_ETCD_CERTIFICATE].
    #[arg(long, value_name = "FILE")]
    etcd_certificate: Option<PathBuf>,
    /// File with its private key, mode 600 [env: SUN_ETCD_CERTIFICATE_KEY].
    #[arg(long, value_name = "FILE")]
    etcd_certificate_key: Option<PathBuf>,
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
        let mut source = source
            .context("which topology? Say --topology FILE or --topology etcd://HOST:PORT/KEY, or set SUN_TOPOLOGY")?;
        if let Source::Etcd(etcd) = &mut source {
            self.complete(etcd)?;
        }
        Ok(source)
    }

    /// The files that have no place in the short form. Those that are set for another cluster do not count.
    fn complete(&self, etcd: &mut Etcd) -> anyhow::Result<()> {
        let file = |said: &Option<PathBuf>, name: &str| said.clone().or_else(|| variable(name).map(PathBuf::from));
        if etcd.user.is_some() && etcd.password_file.is_none() {
            let password = file(&self.etcd_password_file, "SUN_ETCD_PASSWORD_FILE");
            etcd.password_file = Some(password.context("whose password? Say --etcd-password-file FILE")?);
        }
        if etcd.is_tls() && etcd.ca.is_none() {
            let ca = file(&self.etcd_ca, "SUN_ETCD_CA");
            etcd.ca = Some(ca.context("whose certificates are to be trusted? Say --etcd-ca FILE")?);
            etcd.certificate = file(&self.etcd_certificate, "SUN_ETCD_CERTIFICATE");
            etcd.certificate_key = file(&self.etcd_certificate_key, "SUN_ETCD_CERTIFICATE_KEY");
        }
        match etcd.problems() {
            Some(problem) => anyhow::bail!("topology: {problem}"),
            None => Ok(()),
        }
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

//! Config and token files of a test's daemons, written as an operator would write them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::certificates::Files;
use crate::topology::{Server, Topology};

/// What the config of one daemon says, where a test wants it otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The topology's file.
    pub topology: PathBuf,
    /// Folder for state; the config lies beside it.
    pub data: PathBuf,
    /// Where the popularity API is, for those who report to it.
    pub api: Option<SocketAddr>,
    /// Certificates, the first for unknown names.
    pub certificates: Vec<Files>,
    /// RAM of the cache, bytes.
    pub ram_bytes: u64,
    /// Folder with token files.
    pub tokens: PathBuf,
    /// Prefix list.
    pub prefixes: PathBuf,
    /// The geo server whose table is followed; without it the prefix list is evidence itself.
    pub geo: Option<SocketAddr>,
    /// How much is logged.
    pub log_level: String,
    /// When a sun rests: never, since machines that run tests are pressed.
    pub rest: String,
    /// More keys at the top of the edge's table, `workers = 1`.
    pub more: String,
}

impl Settings {
    /// `sun.toml`.
    #[must_use]
    pub fn sun(&self, server: &Server) -> String {
        self.edge(server, "")
    }

    /// `cache-daemon.toml`; it plans and retries five times a second, so that tests need not wait.
    #[must_use]
    pub fn cache(&self, server: &Server) -> String {
        let vault = self.data.join("vault");
        format!("vault = {vault:?}\nplan_ms = 200\nprefill.retry_ms = 200\n\n[edge]\n{}", self.edge(server, "edge."))
    }

    /// `popularity-api.toml`.
    #[must_use]
    pub fn popularity_api(&self, listen: SocketAddr, admin: SocketAddr) -> String {
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\ntopology = {:?}\ndata = {:?}\ntokens = {:?}\n{}\n\
             {}\n[log]\nlevel = \"{}\"\n",
            self.topology,
            self.data,
            self.tokens.join("tokens.toml"),
            self.more,
            self.evidence("", "operator"),
            self.log_level
        )
    }

    fn edge(&self, server: &Server, table: &str) -> String {
        let mut text = format!(
            "name = \"{}\"\nhttps = [\"{}\"]\nhttp = [\"{}\"]\ninternal = \"{}\"\nadmin = \"{}\"\n\
             topology = {:?}\ndata = {:?}\ntokens = {:?}\ntoken = {:?}\nram_bytes = {}\nreport_ms = 200\n{}\n{}\n",
            server.name,
            server.https(),
            server.http(),
            server.internal(),
            server.admin(),
            self.topology,
            self.data,
            self.tokens.join("tokens.toml"),
            token_file(&self.tokens, &server.name),
            self.ram_bytes,
            if server.is_sun() { self.rest.as_str() } else { "" },
            self.more
        );
        for Files { chain, key } in &self.certificates {
            let _ = write!(text, "\n[[{table}certificates]]\nchain = {chain:?}\nkey = {key:?}\n");
        }
        if let Some(api) = self.api {
            let token = token_file(&self.tokens, &server.name);
            let _ = write!(text, "\n[{table}popularity]\nurl = \"http://{api}\"\ntoken_file = {token:?}\n");
        }
        let evidence = self.evidence(table, &server.name);
        let _ = write!(text, "\n{evidence}\n[{table}log]\nlevel = \"{}\"\n", self.log_level);
        text
    }

    /// What tells the region of a client.
    fn evidence(&self, table: &str, bearer: &str) -> String {
        match self.geo {
            None => format!("[{table}geo]\nprefixes = [{:?}]\n", self.prefixes),
            Some(geo) => {
                let token = token_file(&self.tokens, bearer);
                format!("[{table}geo.server]\nurl = \"http://{geo}\"\ntoken_file = {token:?}\n")
            }
        }
    }

    /// `geo.toml`.
    #[must_use]
    pub fn geo_serve(&self, listen: SocketAddr, admin: SocketAddr) -> String {
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\ntopology = {:?}\ndata = {:?}\ntokens = {:?}\n{}\n\
             [[list]]\nfile = {:?}\n\n[log]\nlevel = \"{}\"\n",
            self.topology,
            self.data,
            self.tokens.join("tokens.toml"),
            self.more,
            self.prefixes,
            self.log_level
        )
    }
}

/// A bearer's token: long enough, and different for everybody.
#[must_use]
pub fn token(name: &str) -> String {
    format!("token-of-{name}-in-a-test")
}

/// Where a bearer's own token lies.
#[must_use]
pub fn token_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.token"))
}

/// Writes `tokens.toml` and everybody's own token file: all servers, `backend` and `operator`.
pub fn write_tokens(folder: &Path, topology: &Topology) {
    let mut all = String::new();
    for server in &topology.servers {
        let role = if server.is_sun() { "sun" } else { "cache" };
        let _ = write!(
            all,
            "[[token]]\ntoken = \"{}\"\nrole = \"{role}\"\nregion = {}\nname = \"{}\"\n\n",
            token(&server.name),
            server.region(),
            server.name
        );
        crate::files::write(&token_file(folder, &server.name), &token(&server.name));
    }
    for role in ["backend", "operator"] {
        let _ = write!(all, "[[token]]\ntoken = \"{}\"\nrole = \"{role}\"\n\n", token(role));
        crate::files::write(&token_file(folder, role), &token(role));
    }
    crate::files::write(&folder.join("tokens.toml"), &all);
}

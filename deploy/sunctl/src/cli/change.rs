//! Changes of the topology: who makes them, why, and whether anybody is asked.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use daemon::config::variable;
use geo::answer::Answer;

use super::sources::{ApiArgs, TopologyArgs};
use super::{ForceArgs, asked, waiting};
use crate::edit::Edit;
use crate::ramp;
use crate::topology::change::{Consent, Signature};
use crate::topology::entry::HISTORY_MAX;
use crate::topology::{self, Compared};
use crate::weight::{self, Guard, Wish};

/// How a change is made.
#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// Preview only.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Apply without asking.
    #[arg(long)]
    yes: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who, for the history [env: SUDO_USER, USER].
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

impl ChangeArgs {
    /// On a terminal it is asked, in a script it is applied.
    pub(super) fn consent<'a>(&self, ask: &'a mut dyn FnMut(&str) -> anyhow::Result<bool>) -> Consent<'a> {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        match (self.dry_run, is_terminal && !self.yes) {
            (true, _) => Consent::Never,
            (false, true) => Consent::Asked(ask),
            (false, false) => Consent::Given,
        }
    }

    pub(super) fn signature(&self) -> anyhow::Result<Signature> {
        let author = self.author.clone().or_else(|| variable("SUDO_USER")).or_else(|| variable("USER"));
        Signature::new(&author.unwrap_or_default(), &self.reason)
    }

    /// One server's change, at once or in steps.
    pub(super) fn change(
        &self,
        topology: &TopologyArgs,
        (server, edit): (&str, Edit),
        over: Option<Duration>,
        guard: Guard,
    ) -> anyhow::Result<Answer> {
        let (source, by, told) = (topology.source()?, self.signature()?, self.api.told(topology, Some(server))?);
        let (wish, mut ask) = (Wish { server, edit, guard }, asked);
        let consent = self.consent(&mut ask);
        match over {
            None => waiting(weight::set(&source, wish, &by, consent, &told)),
            Some(over) => waiting(ramp::set(&source, wish, over, &by, consent, &told)),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum TopologyCommand {
    /// Print the document.
    Show {
        /// What this change left, by its number in the history.
        #[arg(long)]
        number: Option<u64>,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Show what the last change changed, or what lies between two.
    Diff {
        /// From what this change left, by its number in the history [default: the one before the last].
        from: Option<u64>,
        /// To what this one left [default: what there is now].
        to: Option<u64>,
        /// From what there is now to this file.
        #[arg(long, value_name = "FILE", conflicts_with = "from")]
        file: Option<PathBuf>,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Show the latest changes: when, who, what, why. The last 100 are kept.
    History {
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
        limit: u16,
        /// All that are kept.
        #[arg(long, conflicts_with = "limit")]
        all: bool,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Make what a change left the document again, as a new version.
    Rollback {
        /// The change's number in the history.
        number: u64,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// Put a file in place of the document. Its version must be above that of the document there is.
    Put {
        /// The new document.
        file: PathBuf,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        topology: TopologyArgs,
    },
}

impl TopologyCommand {
    pub(super) fn answer(&self) -> anyhow::Result<Answer> {
        match self {
            Self::Show { number, topology } => waiting(topology::show(&topology.source()?, *number)),
            Self::Diff { from, to, file, topology } => {
                let compared = match (file, from) {
                    (Some(file), _) => Compared::File(file),
                    (None, Some(from)) => Compared::Changes(*from, *to),
                    (None, None) => Compared::Last,
                };
                waiting(topology::diff(&topology.source()?, compared))
            }
            Self::History { limit, all, topology } => {
                let count_max = if *all { HISTORY_MAX } else { usize::from(*limit) };
                waiting(topology::history(&topology.source()?, count_max))
            }
            Self::Rollback { number, force, change, topology } => {
                let (source, by, guard) = (topology.source()?, change.signature()?, Guard::unless(force.force));
                waiting(topology::rollback(&source, *number, guard, &by, change.consent(&mut asked)))
            }
            Self::Put { file, force, change, topology } => {
                let (source, by, guard) = (topology.source()?, change.signature()?, Guard::unless(force.force));
                waiting(topology::put(&source, file, guard, &by, change.consent(&mut asked)))
            }
        }
    }
}

//! Links.

use daemon::clock::unix_ms;
use daemon::problem::Refusal;
use geo::CanonicalName;

use super::{Api, read};
use crate::links::bulk::{self, Question};
use crate::links::{self, Knowledge, Maker, Visitor};
use crate::wire::HeldBy;

impl Api {
    /// `POST /v1/links`: the body of the answer, [`crate::wire::Links`], to the body of a [`crate::wire::LinksRequest`].
    ///
    /// # Errors
    ///
    /// 400 for what is no such request, and for too many files.
    pub fn links(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let question = Question::parse(body)?;
        let topology = self.topology();
        let client = question.client.to_canonical();
        let (holdings, registry, keys) = (read(&self.holdings), read(&self.registry), self.keys.load());
        let view = registry.at(self.now_ms());
        let resolver = self.resolver.load();
        let mut visitor = Visitor::new(client, question.scheme, &resolver, &topology, view);
        if question.explain {
            visitor = visitor.with_whom_it_misses(client, &resolver, &topology, view);
        }
        let knowledge = Knowledge {
            topology: &topology,
            holdings: &holdings,
            view,
            purges: &self.purges,
            signer: topology.signing.as_ref().and_then(|signing| keys.signer(signing)),
            now_s: unix_ms() / 1000,
        };
        let maker = Maker::new(knowledge, &visitor);
        let mut json = Vec::with_capacity(body.len() + question.files.len() * LINK_BYTES);
        let tally = bulk::answer(&maker, &question, &mut |below| rand::random_range(0..below), &mut json);
        for (server, count) in tally.counts() {
            if count > 0 {
                self.metrics.links.with_label_values(&[server]).inc_by(count);
            }
        }
        Ok(json)
    }

    /// `GET /v1/held?file=NAME`: which caches hold a file, named as for links or as a site's file is.
    ///
    /// # Errors
    ///
    /// 400 for what is no file's name.
    pub fn holders(&self, file: &str) -> Result<HeldBy, Refusal> {
        let plain = file.strip_prefix('/').unwrap_or(file);
        let name = CanonicalName::parse(plain).or_else(|_| CanonicalName::from_written(plain));
        let name = name.map_err(|error| Refusal::bad(format!("file: {file:?}: {error}")))?;
        let topology = self.topology();
        let (holdings, registry) = (read(&self.holdings), read(&self.registry));
        Ok(links::held_by(&topology, &holdings, &self.purges, registry.at(self.now_ms()), &name))
    }
}

/// What a link usually takes beside its name, bytes.
const LINK_BYTES: usize = 140;

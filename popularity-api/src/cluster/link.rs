//! The connection: made when it is first needed, and everything that is sent over it.
//!
//! The client keeps one connection to each node and the map of slots; it follows redirections (`MOVED`, `ASK`), waits while a
//! slot moves (`TRYAGAIN`) or the cluster is down, and connects anew. What it gives up on is tried again here until the
//! deadline of the call. A connection over which a whole call found nobody is left for a new one: when all nodes were gone at once, the
//! client does not always find them again.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{Pipeline, Value, cmd};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep, timeout_at};

use super::Settings;
use super::metrics::Metrics;

/// To the cluster.
#[derive(Debug)]
pub(super) struct Link {
    client: ClusterClient,
    /// Who holds it connects, and the others wait.
    connection: Mutex<Option<Connected>>,
    /// For [`Link::probe`] and [`Link::appendonly`].
    looking: Mutex<Option<Connected>>,
    agreed: OnceCell<()>,
    settings: Settings,
    pub(super) metrics: Metrics,
}

/// Why a try brought nothing.
enum Failed {
    /// Nobody answered.
    Away(String),
    /// Somebody did, but not with what was asked for.
    Answered(String),
}

/// A connection over whose cluster it is known that it was made with the same settings.
struct Connected {
    connection: ClusterConnection,
    since: Instant,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Connected")
    }
}

impl Link {
    /// Connects to nothing yet.
    pub(super) fn new(settings: Settings, metrics: Metrics) -> Result<Self, redis::RedisError> {
        let mut builder = ClusterClient::builder(settings.nodes.iter().map(|node| format!("redis://{node}/")))
            .connection_timeout(CONNECT)
            .response_timeout(settings.wait + RESPONSE)
            .overall_response_timeout(None)
            .retries(RETRIES)
            .min_retry_wait(10)
            .max_retry_wait(200);
        if let Some(username) = &settings.username {
            builder = builder.username(username);
        }
        if let Some(password) = &settings.password {
            builder = builder.password(password);
        }
        Ok(Self {
            client: builder.build()?,
            connection: Mutex::default(),
            looking: Mutex::default(),
            agreed: OnceCell::new(),
            settings,
            metrics,
        })
    }

    /// Runs a script, and waits for no copy of what it writes.
    pub(super) async fn ask(&self, script: &str, keys: &[String], arguments: &[String]) -> Result<Value, String> {
        let mut eval = cmd("EVAL");
        eval.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        self.keyed(keys, vec![eval]).await
    }

    /// A hash's values of some fields.
    pub(super) async fn fields(&self, key: &str, fields: &[&str]) -> Result<Value, String> {
        let mut get = cmd("HMGET");
        get.arg(key).arg(fields);
        self.keyed(&[key.to_owned()], vec![get]).await
    }

    /// Runs a script that writes, and waits until enough copies have what it wrote. Both go over one connection, one after
    /// the other: `WAIT` waits for what its own connection wrote.
    pub(super) async fn write(&self, script: &str, keys: &[String], arguments: &[&[u8]]) -> Result<Value, String> {
        let mut eval = cmd("EVAL");
        eval.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        let mut commands = vec![eval];
        if self.settings.replicas > 0 {
            let mut wait = cmd("WAIT");
            wait.arg(self.settings.replicas).arg(self.settings.wait.as_millis().to_string());
            commands.push(wait);
        }
        self.keyed(keys, commands).await
    }

    /// As long as there is time, until it succeeds. Everything that is sent may be sent again.
    async fn keyed(&self, keys: &[String], commands: Vec<redis::Cmd>) -> Result<Value, String> {
        let began = Instant::now();
        let answer = self.until(began + self.settings.timeout, keys, commands).await;
        if let Err(Failed::Away(_)) = &answer {
            self.leave(began);
        }
        answer.map_err(|failed| match failed {
            Failed::Away(why) | Failed::Answered(why) => why,
        })
    }

    async fn until(&self, deadline: Instant, keys: &[String], commands: Vec<redis::Cmd>) -> Result<Value, Failed> {
        let mut failed = Failed::Away("it did not answer in time".to_owned());
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        loop {
            match timeout_at(deadline, self.once(keys, pipeline.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failed = error,
                Err(_) => return Err(failed),
            }
            if Instant::now() + AGAIN > deadline {
                return Err(failed);
            }
            self.metrics.retries.inc();
            sleep(AGAIN).await;
        }
    }

    async fn once(&self, keys: &[String], pipeline: Pipeline) -> Result<Value, Failed> {
        let mut connection = self.connected().await.map_err(Failed::Away)?;
        let slot = Slot::for_key(keys.first().map(String::as_str).unwrap_or_default());
        let route = SingleNodeRoutingInfo::SpecificNode(Route::with_slot(slot, SlotAddr::Master));
        let count = pipeline.len();
        let answers = connection.route_pipeline(pipeline, 0, count, route).await;
        let mut answers =
            answers.map_err(|error| Failed::Away(error.to_string()))?.into_iter().map(|answer| match answer {
                Value::ServerError(error) => Err(Failed::Answered(redis::RedisError::from(error).to_string())),
                answer => Ok(answer),
            });
        let answer = answers.next().unwrap_or_else(|| Err(Failed::Answered("an empty answer".to_owned())))?;
        match answers.next().transpose()? {
            Some(Value::Int(copies)) if copies < i64::from(self.settings.replicas) => {
                self.metrics.short.inc();
                let (wanted, within) = (self.settings.replicas, self.settings.wait);
                Err(Failed::Answered(format!("{copies} of {wanted} copies confirmed it within {within:?}")))
            }
            _ => Ok(answer),
        }
    }

    /// What some node says of the cluster.
    pub(super) async fn probe(&self) -> Result<Value, String> {
        let mut info = cmd("CLUSTER");
        info.arg("INFO");
        self.look(info, RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random)).await
    }

    /// What every node says of its `appendonly`.
    pub(super) async fn appendonly(&self) -> Result<Value, String> {
        let mut config = cmd("CONFIG");
        config.arg("GET").arg("appendonly");
        let looking = self.look(config, RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, None)));
        let answer = timeout_at(Instant::now() + self.settings.timeout, looking).await;
        answer.map_err(|_| "not all nodes answered in time".to_owned())?
    }

    /// Asks over a connection of its own, which is made anew after any trouble: what looks at the cluster is never in the way
    /// of what counts. One looks at a time.
    async fn look(&self, question: redis::Cmd, whom: RoutingInfo) -> Result<Value, String> {
        let mut kept = self.looking.lock().await;
        // Who is cut off by a deadline leaves none behind.
        let mut connected = self.taken_or_new(&mut kept).await?;
        let answer = match connected.connection.route_command(question, whom).await {
            Err(error) if error.code() == Some("NOPERM") => Ok(Value::Nil),
            answer => answer.map_err(|error| error.to_string()),
        };
        if answer.is_ok() {
            *kept = Some(connected);
        }
        answer
    }

    /// Where it is looked for.
    pub(super) fn nodes(&self) -> &[String] {
        &self.settings.nodes
    }

    async fn connected(&self) -> Result<ClusterConnection, String> {
        let mut kept = self.connection.lock().await;
        let connected = self.taken_or_new(&mut kept).await?;
        Ok(kept.insert(connected).connection.clone())
    }

    async fn taken_or_new(&self, kept: &mut Option<Connected>) -> Result<Connected, String> {
        match kept.take() {
            Some(connected) => Ok(connected),
            None => self.connect().await,
        }
    }

    /// The next call connects anew, unless somebody did so a short time before this one began, or does. Calls for nodes that are
    /// there wait for that as well, so it is not done often.
    fn leave(&self, began: Instant) {
        if let Ok(mut kept) = self.connection.try_lock()
            && kept.as_ref().is_some_and(|connected| connected.since + KEPT_MIN < began)
        {
            *kept = None;
        }
    }

    async fn connect(&self) -> Result<Connected, String> {
        let connecting = self.client.get_async_connection_with_config(ClusterConfig::new());
        let connection = connecting.await.map_err(|error| error.to_string())?;
        // Once is enough, and the node that knows it may be the one that is away.
        self.agreed.get_or_try_init(|| self.agree(connection.clone())).await?;
        Ok(Connected { connection, since: Instant::now() })
    }

    /// Sums that were made with other half-lives mean something else, and with other shards they are not found.
    async fn agree(&self, mut connection: ClusterConnection) -> Result<(), String> {
        let (key, ours) = (format!("{}:settings", self.settings.prefix), self.settings.fingerprint());
        let mut set = cmd("SET");
        set.arg(&key).arg(&ours).arg("NX");
        let _: Value = set.query_async(&mut connection).await.map_err(|error| error.to_string())?;
        let found: String =
            cmd("GET").arg(&key).query_async(&mut connection).await.map_err(|error| error.to_string())?;
        if found == ours {
            return Ok(());
        }
        Err(format!(
            "its ratings were made with {found} and not with {ours}; choose another cluster.prefix, or delete {key}"
        ))
    }
}

/// Making one connection.
const CONNECT: Duration = Duration::from_secs(1);
/// An answer, beside the time that `WAIT` takes.
const RESPONSE: Duration = Duration::from_secs(2);
/// Redirections, reconnections and short waits of the client itself.
const RETRIES: u32 = 8;
/// A connection is not left before.
const KEPT_MIN: Duration = Duration::from_secs(5);
/// From one try to the next.
const AGAIN: Duration = Duration::from_millis(50);

//! What the self-check answers.
//!
//! | where | call | who | answer |
//! |---|---|---|---|
//! | internal | `GET /v1/selfcheck` | a sun, an operator | 200 and a [`super::peers::Peer`] |
//! | admin | `GET /status` | anybody there | 200 and a [`Status`] |
//! | admin | `POST /disable` `{"reason": "...", "force": false}` | an operator, this sun's own token | 200 and a [`Done`]; 409: it is needed, or another order is under way or took its place |
//! | admin | `POST /enable` `{"reason": "..."}` | the same | 200 and a [`Done`] |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use daemon::problem::{Refusal, from_json};
use daemon::tokens::{Role, Tokens};
use tokio::sync::{mpsc, oneshot};

use super::driver::{Done, Heard, Order, Refused};
use super::peers;
use super::pulse::Pulse;
use super::status::Status;

/// What the answers come from.
#[derive(Clone, Debug)]
pub struct Desk {
    /// What is known.
    pub status: Arc<Mutex<Status>>,
    /// Who may ask.
    pub tokens: Tokens,
    /// Whose self-check this is.
    pub name: String,
    /// Where orders go.
    pub orders: mpsc::Sender<Heard>,
    /// When the driver last heard of the sun, and how often it is to, milliseconds.
    pub pulse: (Pulse, u64),
}

/// The body of an order.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBody {
    /// Why; shown with the state.
    #[serde(default)]
    pub reason: String,
    /// Also if the group has too few others.
    #[serde(default)]
    pub force: bool,
}

/// The routes of the internal listener.
pub fn internal(desk: Desk) -> Router {
    Router::new().route(peers::PATH, get(selfcheck)).with_state(desk)
}

/// The routes of the admin port, beside those that every daemon has.
pub fn admin(desk: Desk) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/disable", post(disable))
        .route("/enable", post(enable))
        .with_state(desk)
}

async fn selfcheck(State(desk): State<Desk>, fields: HeaderMap) -> Response {
    match desk.admit(&fields, false) {
        Ok(_) => Json(desk.peer()).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn status(State(desk): State<Desk>) -> Json<Status> {
    Json(desk.status())
}

async fn disable(State(desk): State<Desk>, fields: HeaderMap, body: Bytes) -> Result<Json<Done>, Refusal> {
    let (who, OrderBody { reason, force }) = desk.order(&fields, &body)?;
    let reason = said_by(&who, &reason);
    desk.give(Order::Disable { reason, force }).await
}

async fn enable(State(desk): State<Desk>, fields: HeaderMap, body: Bytes) -> Result<Json<Done>, Refusal> {
    let (who, OrderBody { reason, .. }) = desk.order(&fields, &body)?;
    desk.give(Order::Enable { reason: said_by(&who, &reason) }).await
}

impl Desk {
    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn peer(&self) -> peers::Peer {
        let (pulse, every_ms) = &self.pulse;
        self.status().peer(pulse.age_ms(), *every_ms)
    }

    /// Who asks. Orders are the operator's, and this machine's.
    fn admit(&self, fields: &HeaderMap, orders: bool) -> Result<String, Refusal> {
        let authorization = fields.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let who = self.tokens.admit(authorization)?;
        let own = who.role == Role::Sun && who.name == self.name;
        let may = match who.role {
            Role::Operator => true,
            Role::Sun => own || !orders,
            Role::Cache | Role::Backend | Role::Replica => false,
        };
        let whose = if orders {
            "orders are for operators and for this sun's own token"
        } else {
            "this is for operators and for suns"
        };
        let refusal = || Refusal::new(StatusCode::FORBIDDEN, whose);
        may.then(|| who.name.clone()).ok_or_else(refusal)
    }

    fn order(&self, fields: &HeaderMap, body: &[u8]) -> Result<(String, OrderBody), Refusal> {
        let who = self.admit(fields, true)?;
        let order: OrderBody = from_json(body)?;
        if order.reason.chars().count() > REASON_CHARACTERS_MAX {
            return Err(Refusal::bad(format!("reason: has more than {REASON_CHARACTERS_MAX} characters")));
        }
        Ok((who, order))
    }

    async fn give(&self, order: Order) -> Result<Json<Done>, Refusal> {
        let ends = || Refusal::unavailable("this self-check is ending".to_owned());
        let (answer, answered) = oneshot::channel();
        self.orders.send(Heard::Order(order, answer)).await.map_err(|_| ends())?;
        let late = || {
            Refusal::unavailable(
                "the order waits for the others of the group: `sun-check status` shows what becomes of it".to_owned(),
            )
        };
        let answered = tokio::time::timeout(ORDER_MAX, answered).await.map_err(|_| late())?;
        match answered.map_err(|_| ends())? {
            Ok(done) => Ok(Json(done)),
            Err(Refused::Needed(why)) => Err(Refusal::new(StatusCode::CONFLICT, why)),
            Err(Refused::Superseded) => {
                Err(Refusal::new(StatusCode::CONFLICT, "another order took its place".to_owned()))
            }
            Err(Refused::Busy) => Err(Refusal::new(StatusCode::CONFLICT, "another order is under way".to_owned())),
        }
    }
}

fn said_by(who: &str, reason: &str) -> String {
    if reason.is_empty() { format!("ordered by {who}") } else { format!("{reason} (ordered by {who})") }
}

/// An order is answered after so long, below what `sun-check disable` waits.
const ORDER_MAX: Duration = Duration::from_secs(4);

/// Longest reason.
const REASON_CHARACTERS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::config::SpeakerKind;
    use super::super::machine;
    use super::super::speaker::Speaking;
    use super::*;

    #[test]
    fn suns_of_the_group_may_ask_and_only_the_own_one_may_order() {
        let mut tokens = String::new();
        let sun = |name| format!("role = 'sun'\nregion = 4\nname = '{name}'");
        let whose = [sun("sun4-2-1"), sun("sun4-2-2"), "role = 'operator'".to_owned(), "role = 'backend'".to_owned()];
        for (at, who) in whose.iter().enumerate() {
            tokens += &format!("[[token]]\ntoken = 'the-token-of-number-{at}'\n{who}\n");
        }
        let status = Status::new("sun4-2-1", machine::State::Up, Speaking::new(SpeakerKind::None), 0);
        let desk = Desk {
            status: Arc::new(Mutex::new(status)),
            tokens: Tokens::parse(&tokens, "test").unwrap(),
            name: "sun4-2-1".to_owned(),
            orders: mpsc::channel(1).0,
            pulse: (Pulse::new(Instant::now()), 500),
        };
        let check = |at: usize, asks: Option<&str>, orders: Option<&str>| {
            let mut fields = HeaderMap::new();
            fields.insert(header::AUTHORIZATION, format!("Bearer the-token-of-number-{at}").parse().unwrap());
            for (is_order, expected) in [(false, asks), (true, orders)] {
                let refused = desk.admit(&fields, is_order).err().map(|refusal| format!("{refusal:?}"));
                match expected {
                    None => assert_eq!(refused, None, "{at}"),
                    Some(why) => assert!(refused.is_some_and(|refused| refused.contains(why)), "{at}"),
                }
            }
        };
        let own = Some("orders are for operators and for this sun's own token");
        check(0, None, None);
        check(1, None, own);
        check(2, None, None);
        check(3, Some("this is for operators and for suns"), own);
    }
}

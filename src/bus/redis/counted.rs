//! Publishes and counts who subscribes by exactly the channel's name; `PUBLISH` itself counts patterns too.

use fred::clients::Client;
use fred::error::Error as FredError;
use fred::prelude::{PubsubInterface, TransactionInterface};
use fred::types::Value as FredValue;

/// Publishes, and counts who subscribes to exactly this channel. Both at one moment: who subscribes between a count and a
/// message would be counted wrongly in either order.
pub(super) async fn publish_and_count(client: &Client, channel: String, payload: String) -> Result<u64, FredError> {
    let both = client.multi();
    both.pubsub_numsub::<(), _>(channel.clone()).await?;
    both.publish::<(), _, _>(channel, payload).await?;
    match both.exec::<FredValue>(true).await? {
        FredValue::Array(answers) => Ok(answers.into_iter().next().map_or(0, exact)),
        _ => Ok(0),
    }
}

/// The count in an answer of `PUBSUB NUMSUB` for one channel: its name, and the count after it.
pub(super) fn exact(answer: FredValue) -> u64 {
    match answer {
        FredValue::Array(pair) => pair.into_iter().nth(1).and_then(|count| count.as_u64()).unwrap_or(0),
        _ => 0,
    }
}

//! What the agent orders is answered, however full the way back is.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::{io::AsyncWriteExt as _, net::unix::pipe, sync::mpsc, time::timeout};

use super::world::{SOON, World, echo, inspect};
use crate::envelope::{
    orders::Orders,
    spec::{Order, Said},
};

#[tokio::test]
async fn an_answer_waits_for_room_and_is_not_lost() {
    let world = World::new(inspect("enforce"), echo).await;
    let (mut orders, received) = pipe::pipe().unwrap();
    let (said, mut heard) = mpsc::channel(1);
    let (_settling, settles) = mpsc::channel(1);
    // The agent has not read what was said before.
    said.send(Said::Missed(1)).await.unwrap();
    let shared = Arc::clone(&world.shared);
    tokio::spawn(async move {
        Orders::new(received)
            .carry_out(&shared, settles, said)
            .await
    });
    for last in [8, 9] {
        let address = Ipv4Addr::new(127, 77, 0, last);
        let name = format!("{last}.example");
        let mut line = serde_json::to_vec(&Order::Learn { address, name }).unwrap();
        line.push(b'\n');
        orders.write_all(&line).await.unwrap();
    }
    for expected in [Said::Missed(1), Said::Learned, Said::Learned] {
        assert_eq!(timeout(SOON, heard.recv()).await.unwrap(), Some(expected));
    }
}

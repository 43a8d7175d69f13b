//! Lanes that want to send more than there is room for: none waits for another to have enough.

use super::*;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Wake;

/// Tasks that were woken, in that order.
type Ready = Arc<Mutex<VecDeque<usize>>>;

/// Wakes one of them.
struct Task {
    number: usize,
    ready: Ready,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().expect("no panic");
        if !ready.contains(&self.number) {
            ready.push_back(self.number);
        }
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<(), Reason>>>>;

/// Lanes with more to send than anyone takes, each in a task that runs when it was woken.
struct Bulks {
    tasks: Vec<Option<Sending>>,
    ready: Ready,
    wakes: usize,
}

impl Bulks {
    fn new<const N: usize>(lanes: [Lane; N]) -> Self {
        let bulk = |lane: Lane| async move { lane.send_all(&vec![7; 64 << 20], true).await };
        Self {
            tasks: lanes.map(|lane| Some(Box::pin(bulk(lane)) as _)).into(),
            ready: Arc::new(Mutex::new((0..N).collect())),
            wakes: 0,
        }
    }

    /// Runs those that were woken, and says which ones.
    fn run(&mut self) -> Vec<usize> {
        let mut ran = Vec::new();
        let next = || self.ready.lock().expect("no panic").pop_front();
        while let Some(number) = next() {
            self.wakes += 1;
            ran.push(number);
            let ready = self.ready.clone();
            let waker = Waker::from(Arc::new(Task { number, ready }));
            if let Some(task) = &mut self.tasks[number] {
                let _ = task.as_mut().poll(&mut Context::from_waker(&waker));
            }
        }
        ran
    }
}

/// Lanes of a client that wants `N` of them at once and lets the lanes have all they want.
fn asked_for<const N: usize>() -> (End, [Lane; N]) {
    let mut server = End::begun(Side::Server);
    let all = setting(4, WINDOW_MAX);
    server.hears(&all).expect("settings");
    for id in (1..).step_by(2).take(N) {
        server.hears(&get(id)).expect("a request");
    }
    server.says();
    let accepted = std::mem::take(&mut server.accepted).into_values();
    let lanes = accepted
        .collect::<Vec<_>>()
        .try_into()
        .expect("all of them");
    (server, lanes)
}

/// How much DATA of which lane the server has to say.
fn sent<const N: usize>(server: &End) -> [usize; N] {
    let mut sent = [0; N];
    for (kind, _, id, payload) in server.frames() {
        if kind == Kind::Data {
            sent[id as usize / 2] += payload.len();
        }
    }
    sent
}

#[test]
fn lanes_share_a_window_that_opens_slowly() {
    let (mut server, lanes) = asked_for::<3>();
    let mut bulks = Bulks::new(lanes);
    let mut all = [0; 3];
    for _ in 0..300 {
        bulks.run();
        for (all, sent) in all.iter_mut().zip(sent::<3>(&server)) {
            *all += sent;
        }
        server.hears(&window(0, 1000)).expect("a window");
    }
    let fair = 299_000 / 3;
    let first = WINDOW_FIRST as usize;
    assert!(all[0] >= fair && all[0] <= fair + first + 1000, "{all:?}");
    assert!(
        all[1..].iter().all(|all| all.abs_diff(fair) <= 1000),
        "{all:?}"
    );
    let wakes = bulks.wakes;
    assert!(
        wakes <= 310,
        "one is woken by what one can send, not {wakes}"
    );
}

#[test]
fn lanes_share_a_queue_that_is_sent_slowly() {
    let (mut server, lanes) = asked_for::<3>();
    let most = window(0, WINDOW_MAX - WINDOW_FIRST);
    server.hears(&most).expect("a window");
    let mut bulks = Bulks::new(lanes);
    let mut all = [0; 3];
    for _ in 0..100 {
        bulks.run();
        let sent = sent::<3>(&server);
        assert!(
            sent.iter().sum::<usize>() >= SEND_QUEUE_BYTES,
            "the room is used"
        );
        for (all, sent) in all.iter_mut().zip(sent) {
            *all += sent;
        }
    }
    let (least, most) = (all.iter().min(), all.iter().max());
    let apart = most.zip(least).map(|(most, least)| most - least);
    assert!(apart <= Some(2 * SEND_QUEUE_BYTES), "{all:?}");
}

#[test]
fn a_turn_that_is_not_used_is_the_next_ones() {
    for what in ["dropped", "reset", "out of its own window"] {
        let (mut server, lanes) = asked_for::<2>();
        let mut bulks = Bulks::new(lanes);
        bulks.run();
        sent::<2>(&server);
        // The first one's turn comes, and it is not there to use it.
        server.hears(&window(0, 1000)).expect("a window");
        match what {
            "dropped" => bulks.tasks[0] = None,
            "reset" => {
                let reset = of(Kind::RstStream, 0, 1, &[0, 0, 0, 8]);
                server.hears(&reset).expect("a reset");
            }
            _ => {
                let closed = [setting(4, 0), window(3, WINDOW_MAX >> 1)].concat();
                server.hears(&closed).expect("windows");
            }
        }
        assert_eq!(bulks.run(), [0, 1], "{what}");
        assert_eq!(sent::<2>(&server), [0, 1000], "{what}");
    }
}

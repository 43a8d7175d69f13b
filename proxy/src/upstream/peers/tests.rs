use super::*;
use crate::peer::stream::Stream;
use crate::peer::streams::STREAMS_MAX;

#[test]
fn another_connection_for_those_that_would_wait_and_an_end_to_that() {
    let identity = "spiffe://mesh.local/ns/shop/sa/cart".parse();
    let peers = Peers::default();
    let peer = peers.peer([10, 0, 0, 2].into(), &Is::Proxy(identity.expect("valid")));
    let check = |expected: &str| {
        let found = format!("{:?}", peer.usable(1));
        let name = found.split('(').next();
        assert_eq!(name, Some(expected));
    };
    check("None");
    let large = Streams::new(Side::Dialer);
    peer.add(large.clone(), 1, None);
    check("Now");
    // Much waits to be sent there: whoever comes now goes there, and others elsewhere.
    let flows: Vec<_> = (0..5)
        .map(|_| Stream::tcp(&large, 80).expect("opened"))
        .collect();
    for flow in &flows {
        flow.send_data(&[0; 60_000], false);
    }
    check("Behind");
    peer.add(Streams::new(Side::Dialer), 1, None);
    check("Now");
    // What is retired, of another certificate, or full takes no more.
    assert!(matches!(peer.usable(2), Usable::None));
    large.retire();
    let mut all = Vec::new();
    for count in 1..=CONNECTIONS_MAX {
        check("Now");
        if let Usable::Now(streams) = peer.usable(1) {
            all.extend((0..STREAMS_MAX).map(|_| Stream::tcp(&streams, 80)));
        }
        if count < CONNECTIONS_MAX {
            check("None");
            peer.add(Streams::new(Side::Dialer), 1, None);
        }
    }
    check("Full");
}

#[test]
fn no_peer_is_ejected_because_we_have_no_more_descriptors() {
    for (errno, reason) in [
        (Errno::MFILE, Reason::Overloaded),
        (Errno::ADDRNOTAVAIL, Reason::Overloaded),
        (Errno::CONNREFUSED, Reason::PeerUnreachable),
        (Errno::HOSTUNREACH, Reason::PeerUnreachable),
    ] {
        assert_eq!(blame(&errno.into()), reason, "{errno}");
    }
}

#[test]
fn no_more_than_so_many_wait() {
    let count = Cell::new(0);
    let waiting: Vec<_> = (0..WAITING_MAX)
        .map(|_| Waiting::begin(&count).ok())
        .collect();
    assert!(waiting.iter().all(Option::is_some));
    assert_eq!(Waiting::begin(&count).err(), Some(Reason::Overloaded));
    drop(waiting);
    assert_eq!(count.get(), 0);
}

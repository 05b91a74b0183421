//! The resolver's rules one by one: which names, which servers, in which order, and what failures are called.

use hickory_proto::rr::RecordType;

use super::world::{Habits, Host, MS, SECOND, World};
use crate::clock::Micros;
use crate::dns::Entropy;
use crate::dns::conf::{Hosts, Settings};
use crate::dns::resolver::{
    Action, Family, Lookup, Mode, NameId, RELEASED_NAMES_MAX, Resolver, STRAYS_MAX, Transport,
};
use crate::sample::Failure;

fn settings(resolv_conf: &str) -> Settings {
    let conf = format!("nameserver 192.0.2.1\nnameserver 192.0.2.2\n{resolv_conf}");
    Settings { timeout: Micros::from_millis(1_000), ..Settings::from_resolv_conf(&conf) }
}

fn world(resolv_conf: &str) -> World {
    let mut world = World::new(settings(resolv_conf), 1);
    world.records_asked = true;
    world
}

fn names_asked(world: &World) -> Vec<&str> {
    world.asked.iter().map(|(name, ..)| name.as_str()).collect()
}

fn servers_asked(world: &World) -> Vec<usize> {
    world.asked.iter().map(|(_, _, server, _)| *server).collect()
}

#[test]
fn the_search_list_is_gone_through_as_resolv_conf_says() {
    let check = |conf: &str, name: &str, exists: &str, expected: &[&str]| {
        let mut world = world(conf);
        world.zone.insert(exists.to_owned(), Host::v4(1, 60));
        let id = world.intern(name, Family::V4, &[exists]);
        let found = world.resolve(id, Mode::Cached, SECOND);
        assert_eq!(names_asked(&world), expected, "{name} with {conf:?}");
        let exists = expected.contains(&exists);
        assert_eq!(found.is_ok(), exists, "{name} with {conf:?}: {found:?}");
        if !exists {
            assert_eq!(found, Err(Failure::DnsNotFound));
        }
    };
    let search = "search a.test b.test";
    check(search, "web", "web.b.test", &["web.a.test", "web.b.test"]);
    check(search, "web", "none", &["web.a.test", "web.b.test", "web"]);
    check(search, "web.", "web", &["web"]);
    check(search, "web.", "web.a.test", &["web"]);
    check(search, "www.example", "www.example", &["www.example"]);
    check(
        search,
        "www.example",
        "www.example.b.test",
        &["www.example", "www.example.a.test", "www.example.b.test"],
    );
    let ndots = "search a.test\noptions ndots:3";
    check(ndots, "x.y.z", "x.y.z", &["x.y.z.a.test", "x.y.z"]);
    check(ndots, "w.x.y.z", "w.x.y.z", &["w.x.y.z"]);
    check("", "web", "web", &["web"]);
}

#[test]
fn a_server_that_fails_does_not_send_a_probe_to_another_host() {
    // The name proper cannot be told; a search domain that happens to have such a name must not stand in.
    let mut world = world("search b.test");
    world.zone.insert("www.example.b.test".to_owned(), Host::v4(66, 60));
    world.habits.fill(Habits { fails: 100, ..Habits::default() });
    let id = world.intern("www.example", Family::V4, &["www.example"]);
    assert_eq!(world.resolve(id, Mode::Cached, SECOND), Err(Failure::DnsFailed));
    assert!(names_asked(&world).iter().all(|name| *name == "www.example"));
}

#[test]
fn families_are_asked_side_by_side_and_the_preferred_comes_first() {
    let mut world = world("");
    let host = Host {
        v4: vec![[192, 0, 2, 9].into(), [192, 0, 2, 1].into()],
        v6: vec!["2001:db8::1".parse().unwrap()],
        ttl_s: 60,
        ..Host::default()
    };
    world.zone.insert("www.example".to_owned(), host);
    let check = |world: &mut World, family, expected: &[&str]| {
        let id = world.intern("www.example", family, &["www.example"]);
        let addresses = world.resolve(id, Mode::Cached, SECOND).unwrap().addresses;
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected, "{family:?}");
    };
    check(&mut world, Family::PreferV6, &["2001:db8::1", "192.0.2.1", "192.0.2.9"]);
    assert_eq!(world.asked.len(), 2);
    check(&mut world, Family::PreferV4, &["192.0.2.1", "192.0.2.9", "2001:db8::1"]);
    check(&mut world, Family::V4, &["192.0.2.1", "192.0.2.9"]);
    check(&mut world, Family::V6, &["2001:db8::1"]);
    assert_eq!(world.asked.len(), 2, "all share two questions: {:?}", world.asked);

    world.zone.insert("v4.example".to_owned(), Host::v4(1, 60));
    let id = world.intern("v4.example", Family::V6, &["v4.example"]);
    assert_eq!(
        world.resolve(id, Mode::Cached, SECOND),
        Err(Failure::DnsNotFound),
        "no address of the family"
    );
}

#[test]
fn the_same_addresses_are_the_same_allocation() {
    let mut world = world("");
    world.zone.insert(
        "a.example".to_owned(),
        Host { v4: vec![[10, 0, 0, 2].into(), [10, 0, 0, 1].into()], ttl_s: 1, ..Host::default() },
    );
    let id = world.intern("a.example", Family::V4, &["a.example"]);
    let first = world.resolve(id, Mode::Cached, SECOND).unwrap();
    for _ in 0..10 {
        world.advance_by(2 * SECOND);
        let again = world.resolve(id, Mode::Cached, SECOND).unwrap();
        assert!(std::sync::Arc::ptr_eq(&first.addresses, &again.addresses));
    }
    world.zone.insert("a.example".to_owned(), Host::v4(7, 1));
    world.advance_by(2 * SECOND);
    assert_eq!(
        *world.resolve(id, Mode::Cached, SECOND).unwrap().addresses,
        ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()],
        "a change is followed"
    );
}

#[test]
fn servers_take_over_from_each_other() {
    let mut world = world("");
    for n in 0..20 {
        world.zone.insert(format!("h{n}.example"), Host::v4(1, 3_600));
    }
    let ask = |world: &mut World, n: u32| {
        let name = format!("h{n}.example");
        let id = world.intern(&name, Family::V4, &[&name]);
        world.asked.clear();
        let result = world.resolve(id, Mode::Cached, 10 * SECOND);
        (servers_asked(world), result.err())
    };
    assert_eq!(ask(&mut world, 0), (vec![0], None));
    world.habits[0].dead = true;
    assert_eq!(ask(&mut world, 1), (vec![0, 1], None), "a timeout, then the next");
    assert_eq!(ask(&mut world, 2), (vec![1], None), "the one that was silent is not tried again at once");
    world.habits[1].closed = true;
    assert_eq!(ask(&mut world, 3), (vec![1, 0, 1, 0], Some(Failure::DnsTimeout)), "two attempts at each");
    world.habits[0] = Habits::default();
    world.advance_by(31 * SECOND);
    assert_eq!(ask(&mut world, 4), (vec![0], None), "back to the first");
    world.habits[0].fails = 100;
    world.habits[1] = Habits::default();
    assert_eq!(ask(&mut world, 5), (vec![0, 1], None));
    assert_eq!(ask(&mut world, 6), (vec![0, 1], None), "one that answers is asked first, even if it fails");
    world.habits[1].fails = 100;
    assert_eq!(ask(&mut world, 7), (vec![0, 1, 0, 1], Some(Failure::DnsFailed)));
    world.habits.fill(Habits { closed: true, ..Habits::default() });
    assert_eq!(ask(&mut world, 8).1, Some(Failure::DnsFailed), "nobody listens: that is no timeout");
}

#[test]
fn rotating_servers_take_turns() {
    let mut world = world("options rotate");
    for n in 0..4 {
        let name = format!("h{n}.example");
        world.zone.insert(name.clone(), Host::v4(1, 3_600));
        let id = world.intern(&name, Family::V4, &[&name]);
        world.resolve(id, Mode::Cached, SECOND).unwrap();
    }
    assert_eq!(servers_asked(&world), [1, 0, 1, 0]);
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp() {
    let mut world = world("");
    world.habits[0].truncates = 100;
    let v4 = (0..=255).map(|last| [10, 0, 0, last].into()).collect();
    world.zone.insert("big.example".to_owned(), Host { v4, ttl_s: 60, ..Host::default() });
    // The world checks addresses by the full list, which is cut here.
    let id = world.resolver.intern("big.example", Family::V4);
    assert_eq!(world.resolver.lookup(id, Mode::Cached, world.now), Lookup::Pending);
    let now = world.now;
    let Some(Action::Ask { query, transport: Transport::Udp, message, .. }) = world.resolver.poll(now) else {
        panic!()
    };
    let mut truncated = message.clone();
    truncated[2] |= 0x82;
    world.resolver.answered(query, &truncated, now, now);
    assert_eq!(world.resolver.poll(now), Some(Action::Close { query }));
    let Some(Action::Ask { query: second, server, transport, message: framed }) = world.resolver.poll(now)
    else {
        panic!()
    };
    assert_eq!((server, transport), ("192.0.2.1:53".parse().unwrap(), Transport::Tcp), "the same server");
    assert_ne!(second, query);
    assert_eq!(framed[4..], message[2..], "the same question, with another id");
    assert_ne!(framed[2..4], message[..2]);
    // Truncated again, over TCP: that server is of no use.
    let mut truncated = framed.clone();
    truncated[4] |= 0x82;
    truncated.iter().for_each(|byte| world.resolver.answered(second, &[*byte], now, now));
    assert_eq!(world.resolver.poll(now), Some(Action::Close { query: second }));
    let Some(Action::Ask { server, transport, .. }) = world.resolver.poll(now) else { panic!() };
    assert_eq!((server, transport), ("192.0.2.2:53".parse().unwrap(), Transport::Udp), "the next one");

    let mut world = self::world("");
    world.habits[0].truncates = 100;
    world.zone.insert("a.example".to_owned(), Host::v4(1, 60));
    let id = world.intern("a.example", Family::V4, &["a.example"]);
    assert!(world.resolve(id, Mode::Cached, SECOND).is_ok());
    let transports: Vec<Transport> = world.asked.iter().map(|(.., transport)| *transport).collect();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp]);
}

#[test]
fn a_server_without_edns_is_asked_without_it() {
    let mut world = world("");
    world.habits[0].refuses_edns = true;
    world.zone.insert("a.example".to_owned(), Host::v4(1, 60));
    let id = world.intern("a.example", Family::V4, &["a.example"]);
    assert!(world.resolve(id, Mode::Cached, SECOND).is_ok());
    assert_eq!(servers_asked(&world), [0, 0]);
}

#[test]
fn strays_are_passed_over_and_too_many_of_them_end_a_try() {
    let mut resolver = Resolver::new(settings(""), Entropy::seeded(1));
    let now = super::world::START;
    let id = resolver.intern("a.example", Family::V4);
    assert_eq!(resolver.lookup(id, Mode::Cached, now), Lookup::Pending);
    let Some(Action::Ask { query, message, .. }) = resolver.poll(now) else { panic!() };
    let mut stray = message.clone();
    stray[0] ^= 1;
    for _ in 0..STRAYS_MAX {
        resolver.answered(query, &stray, now, now);
        resolver.answered(query, &message, now, now);
        // An echo of the query is a stray as well, so this is twice as many.
        if resolver.counts().strays > u64::from(STRAYS_MAX) {
            break;
        }
        assert_eq!(resolver.poll(now), None);
    }
    assert_eq!(resolver.poll(now), Some(Action::Close { query }));
    assert!(matches!(resolver.poll(now), Some(Action::Ask { .. })), "the next server");
    let counts = resolver.counts();
    resolver.answered(query, &stray, now, now);
    resolver.failed(query, now);
    assert_eq!((resolver.counts(), resolver.poll(now)), (counts, None), "what comes late is nobody's");
}

#[test]
fn one_family_that_cannot_be_told_does_not_spoil_the_other() {
    // Servers that never answer for AAAA exist; the name is up all the same, and nobody waits twice.
    let mut resolver = Resolver::new(settings(""), Entropy::seeded(1));
    let mut now = super::world::START;
    let id = resolver.intern("a.example", Family::PreferV6);
    assert_eq!(resolver.lookup(id, Mode::Cached, now), Lookup::Pending);
    let mut woken = None;
    for _ in 0..10_000 {
        while let Some(action) = resolver.poll(now) {
            match action {
                Action::Ask { query, message, .. } if message[message.len() - 11 - 3] == 1 => {
                    let mut answer = message.clone();
                    answer[2] |= 0x80;
                    answer[7] = 1;
                    answer[11] = 0;
                    answer.truncate(message.len() - 11);
                    answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\xc0\x00\x02\x01");
                    resolver.answered(query, &answer, now, now);
                }
                Action::Wake { result, .. } => woken = Some(result),
                Action::Ask { .. } | Action::Close { .. } => {}
            }
        }
        if woken.is_some() {
            break;
        }
        now += Micros::from_millis(1);
        resolver.expire(now);
    }
    let known = woken.expect("woken").unwrap();
    assert_eq!((known.addresses.len(), known.stale), (1, false));
    for _ in 0..30_000 {
        assert!(matches!(resolver.lookup(id, Mode::Cached, now), Lookup::Known(_)), "never pending again");
        now += Micros::from_millis(1);
        resolver.expire(now);
        while resolver.poll(now).is_some() {}
    }
}

#[test]
fn hosts_come_first_and_are_never_asked_for() {
    let hosts = Hosts::parse("192.0.2.7 shop.example\n");
    let mut resolver = Resolver::new(Settings { hosts, ..settings("") }, Entropy::seeded(1));
    let now = super::world::START;
    for (name, family, expected) in [
        ("shop.example", Family::PreferV6, vec!["192.0.2.7"]),
        ("Shop.Example.", Family::V4, vec!["192.0.2.7"]),
        ("localhost", Family::PreferV6, vec!["::1", "127.0.0.1"]),
        ("localhost", Family::V4, vec!["127.0.0.1"]),
    ] {
        let id = resolver.intern(name, family);
        for mode in [Mode::Cached, Mode::Every] {
            let Lookup::Known(known) = resolver.lookup(id, mode, now) else { panic!("{name}") };
            let texts: Vec<String> = known.addresses.iter().map(ToString::to_string).collect();
            assert_eq!((texts, known.stale), (expected.iter().map(ToString::to_string).collect(), false));
        }
    }
    assert_eq!((resolver.poll(now), resolver.next_wake()), (None, None));
    let v6 = resolver.intern("shop.example", Family::V6);
    assert_eq!(resolver.lookup(v6, Mode::Cached, now), Lookup::Pending, "the file has none of that family");
}

#[test]
fn what_cannot_be_asked_fails_at_once() {
    let mut resolver = Resolver::new(Settings { names_max: 2, ..settings("") }, Entropy::seeded(1));
    let now = super::world::START;
    for text in ["", "a..b", "a b", &"x".repeat(300)] {
        let id = resolver.intern(text, Family::V4);
        assert_eq!(resolver.lookup(id, Mode::Cached, now), Lookup::Failed(Failure::DnsNotFound), "{text:?}");
        resolver.release(id);
    }
    let ids: Vec<NameId> = ["a.x", "b.x", "c.x"].map(|name| resolver.intern(name, Family::V4)).into();
    assert_eq!(resolver.lookup(ids[2], Mode::Every, now), Lookup::Failed(Failure::DnsFailed), "one too many");
    resolver.release(ids[0]);
    let room = resolver.intern("c.x", Family::V4);
    assert_eq!(resolver.lookup(room, Mode::Cached, now), Lookup::Pending);
    assert_eq!(resolver.lookup(ids[0], Mode::Cached, now), Lookup::Failed(Failure::DnsFailed), "it is gone");
    assert_eq!(resolver.names(), 2);

    let mut resolver = Resolver::new(Settings { servers: Vec::new(), ..settings("") }, Entropy::seeded(1));
    let id = resolver.intern("a.x", Family::V4);
    assert_eq!(resolver.lookup(id, Mode::Cached, now), Lookup::Failed(Failure::DnsFailed), "nobody to ask");
    resolver.warm(id, now);
    assert_eq!(resolver.poll(now), None);
}

#[test]
fn names_that_are_given_back_do_not_add_up() {
    // Redirects to ever new names, all of them looked up.
    let mut resolver = Resolver::new(Settings { queries_max: 4, ..settings("") }, Entropy::seeded(1));
    let mut now = super::world::START;
    for n in 0..50_000 {
        let id = resolver.intern(&format!("r{n}.example"), Family::PreferV4);
        assert_eq!(resolver.lookup(id, Mode::Cached, now), Lookup::Pending);
        resolver.release(id);
        now += Micros(500);
        resolver.expire(now);
        while resolver.poll(now).is_some() {}
        assert!(resolver.names() <= RELEASED_NAMES_MAX && resolver.questions() <= 2 * RELEASED_NAMES_MAX);
        assert!(resolver.in_flight() <= 4);
    }
}

#[test]
fn a_name_is_warm_before_it_is_looked_up() {
    let mut world = world("");
    world.zone.insert("a.example".to_owned(), Host::v4(1, 60));
    let id = world.intern("a.example", Family::V4, &["a.example"]);
    world.resolver.warm(id, world.now);
    world.advance_by(1);
    world.lookup(NameId::clone(&id), Mode::Every);
    world.advance_by(50 * MS);
    assert!(matches!(world.lookup(id, Mode::Cached), Lookup::Known(known) if !known.stale));
    assert_eq!(world.asked.first().map(|asked| asked.1), Some(RecordType::A));
}

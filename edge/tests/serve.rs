//! The live page over real connections.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use reid_edge::serve::{FrameView, Hub, ServeConfig, ServeError, ServerHandle, spawn};
use reid_edge::types::{Assignment, Decision, IdentityId, Ltrb, TrackletId};

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }
}

fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let split = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head,
        body: all[split + 4..].to_vec(),
    }
}

fn get_with(address: SocketAddr, path: &str, headers: &str) -> Answer {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"),
    )
}

fn get(address: SocketAddr, path: &str) -> Answer {
    get_with(address, path, "")
}

fn open_page(hub: &Hub) -> ServerHandle {
    let config = ServeConfig {
        listen: "127.0.0.1:0".into(),
        ..ServeConfig::default()
    };
    spawn(&config, Path::new("."), hub.clone(), None).unwrap()
}

fn somebody() -> (IdentityId, Decision) {
    let identity = IdentityId(uuid::Uuid::from_u128(0x3f2a << 112));
    (
        identity,
        Decision::Matched {
            identity,
            score: 0.8,
            margin: 0.2,
        },
    )
}

fn frame(camera: usize, time: f64, shade: u8) -> FrameView {
    let ltrb = Ltrb {
        left: 10.0,
        top: 8.0,
        right: 30.0,
        bottom: 44.0,
    };
    FrameView {
        camera,
        time,
        picture: Arc::new(RgbImage::from_pixel(64, 48, Rgb([shade, shade, shade])).into()),
        boxes: vec![(ltrb, TrackletId(5), somebody().1)],
        fps: 12.5,
    }
}

fn assignment(time: f64) -> Assignment {
    Assignment {
        tracklet: TrackletId(5),
        camera: 0,
        time,
        decision: somebody().1,
        previous_ids: Vec::new(),
    }
}

#[test]
fn page_pictures_people_and_metrics() {
    let hub = Hub::new(vec!["door".into(), "hall \"A\"".into()]);
    let page = open_page(&hub);
    let at = page.addr();
    let home = get(at, "/");
    assert_eq!(home.status, 200);
    assert!(home.text().contains("page.js"));
    let policy = home.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    // Nothing in the page points elsewhere.
    for path in ["/", "/page.js", "/page.css", "/login"] {
        let text = get(at, path).text();
        assert!(
            !text.contains("http:") && !text.contains("https:") && !text.contains("style="),
            "{path}"
        );
    }
    assert_eq!(get(at, "/camera/0.jpg").status, 204);

    hub.frame(frame(0, 3.0, 200));
    hub.assignment(&assignment(3.0), Some(Arc::new(RgbImage::new(40, 300))));
    hub.known(7);
    hub.metrics().stage("detect", 0.25);
    assert_eq!(
        hub.camera_state(1, "stalled", "no frame for 5 s").unwrap(),
        "hall \"A\""
    );
    let state = get(at, "/api/state").json();
    assert_eq!(state["cameras"][0]["state"], "live");
    assert_eq!(state["cameras"][1]["detail"], "no frame for 5 s");
    assert_eq!(state["known"], 7);
    let person = &state["identities"][0];
    assert_eq!(person["name"], "3f2a");
    assert_eq!(person["visits"][0]["camera"], 0);

    let picture = get(at, "/camera/0.jpg");
    assert_eq!(picture.header("content-type").unwrap(), "image/jpeg");
    let decoded = image::load_from_memory(&picture.body).unwrap().to_rgb8();
    assert_eq!(decoded.dimensions(), (64, 48));
    assert!(decoded.get_pixel(10, 20)[0].abs_diff(200) < 6);
    let boxes: serde_json::Value =
        serde_json::from_str(&picture.header("x-boxes").unwrap()).unwrap();
    assert_eq!(
        (boxes[0]["n"].as_str(), boxes[0]["b"][2].as_f64()),
        (Some("3f2a"), Some(30.0))
    );
    let drawn = image::load_from_memory(&get(at, "/camera/0.jpg?overlay=1").body)
        .unwrap()
        .to_rgb8();
    assert!(
        drawn
            .get_pixel(10, 30)
            .0
            .iter()
            .any(|c| c.abs_diff(200) > 20)
    );
    let id = somebody().0;
    let crop = get(at, &format!("/crop/{id}.jpg?camera=0"));
    assert_eq!(image::load_from_memory(&crop.body).unwrap().height(), 300);

    let metrics = get(at, "/metrics").text();
    for line in [
        "reid_camera_state{camera=\"door\",state=\"live\"} 1",
        "reid_camera_state{camera=\"hall \\\"A\\\"\",state=\"stalled\"} 1",
        "reid_identities 7",
        "reid_tracklets_total 1",
        "reid_decisions_total{state=\"matched\"} 1",
        "reid_stage_seconds_sum{stage=\"detect\"} 0.25",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    for (path, status) in [
        ("/camera/2.jpg", 404),
        ("/camera/x.jpg", 404),
        ("/camera/0.png", 404),
        ("/crop/none.jpg", 404),
        (&format!("/crop/{id}.jpg?camera=1"), 404),
        ("/nothing", 404),
        ("/healthz", 200),
    ] {
        assert_eq!(get(at, path).status, status, "{path}");
    }
}

#[test]
fn a_visitor_waits_for_the_next_picture_and_event() {
    let hub = Hub::new(vec!["door".into()]);
    let page = open_page(&hub);
    let at = page.addr();
    hub.frame(frame(0, 1.0, 50));
    let sequence = get(at, "/camera/0.jpg").header("x-sequence").unwrap();
    let writer = hub.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        writer.frame(frame(0, 2.0, 60));
        std::thread::sleep(Duration::from_millis(300));
        writer.assignment(&assignment(2.0), None);
    });
    let began = Instant::now();
    let next = get(at, &format!("/camera/0.jpg?after={sequence}"));
    assert_eq!(next.header("x-time").unwrap(), "2");
    assert!(began.elapsed() >= Duration::from_millis(250));
    let events = get(at, "/api/events?after=0");
    assert_eq!(events.header("content-type").unwrap(), "text/event-stream");
    later.join().unwrap();
    let text = events.text();
    let data = text.lines().find_map(|l| l.strip_prefix("data: ")).unwrap();
    let event: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(event["decision"]["state"], "matched");
    // A browser that lost the connection gets what it missed, once.
    hub.assignment(&assignment(4.0), None);
    let missed = get_with(at, "/api/events", "Last-Event-ID: 1\r\n").text();
    assert_eq!(missed.matches("data: ").count(), 1, "{missed}");
    assert!(missed.contains("id: 2"));
}

#[test]
fn a_token_guards_everything_but_the_health_check() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "a-long-enough-secret\n").unwrap();
    let config = ServeConfig {
        listen: "0.0.0.0:0".into(),
        token_file: Some("token".into()),
        ..ServeConfig::default()
    };
    let hub = Hub::new(vec!["door".into()]);
    hub.frame(frame(0, 1.0, 50));
    let page = spawn(&config, dir.path(), hub, None).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], page.addr().port()));
    let home = get(at, "/");
    assert_eq!(
        (home.status, home.header("location").unwrap().as_str()),
        (303, "/login")
    );
    for path in [
        "/api/state",
        "/api/events",
        "/camera/0.jpg",
        "/metrics",
        "/page.js",
        "/crop/x.jpg",
    ] {
        assert_eq!(get(at, path).status, 401, "{path}");
        let wrong = get_with(at, path, "Authorization: Bearer a-long-enough-secreT\r\n");
        assert_eq!(wrong.status, 401, "{path}");
    }
    assert_eq!(get(at, "/healthz").status, 200);
    let bearer = "Authorization: Bearer a-long-enough-secret\r\n";
    assert_eq!(get_with(at, "/api/state", bearer).status, 200);
    let post = |token: &str| {
        let body = format!("token={token}");
        ask(
            at,
            &format!(
                "POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    assert_eq!(post("guess").status, 401);
    let session = post("a-long-enough-secret").header("set-cookie").unwrap();
    assert!(
        session.contains("HttpOnly") && session.contains("SameSite=Strict"),
        "{session}"
    );
    assert!(!session.contains("a-long-enough-secret"));
    let cookie = format!(
        "Cookie: other=1; {}\r\n",
        session.split(';').next().unwrap()
    );
    assert_eq!(get_with(at, "/", &cookie).status, 200);
    assert_eq!(get_with(at, "/", "Cookie: reid_session=\r\n").status, 303);
}

#[test]
fn without_a_token_only_this_machine_may_look() {
    let page = open_page(&Hub::new(vec!["door".into()]));
    let elsewhere = "GET /api/state HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(page.addr(), elsewhere).status, 403);
    let fake =
        "GET /api/state HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(page.addr(), fake).status, 403);
    let local = "GET /api/state HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(page.addr(), local).status, 200);
}

#[test]
fn what_cannot_be_served_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("short"), "1234\n").unwrap();
    let try_with = |listen: &str, token: Option<&str>| {
        let config = ServeConfig {
            listen: listen.into(),
            token_file: token.map(Into::into),
            ..ServeConfig::default()
        };
        spawn(&config, dir.path(), Hub::new(Vec::new()), None)
            .err()
            .unwrap()
    };
    assert!(matches!(try_with("here", None), ServeError::Address { .. }));
    let open = try_with("0.0.0.0:0", None);
    assert!(open.to_string().contains("token_file"), "{open}");
    let short = try_with("0.0.0.0:0", Some("short"));
    assert!(short.to_string().contains("at least 16"), "{short}");
    let missing = try_with("127.0.0.1:0", Some("missing"));
    assert!(missing.to_string().contains("missing"), "{missing}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = try_with(&address, None);
    assert!(
        busy.to_string().contains(&address) && busy.to_string().contains("another"),
        "{busy}"
    );
}

#[test]
fn stopping_frees_the_port_even_while_a_visitor_waits() {
    let hub = Hub::new(vec!["door".into()]);
    let page = open_page(&hub);
    let at = page.addr();
    let mut waiting = TcpStream::connect(at).unwrap();
    waiting
        .write_all(format!("GET /api/events HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    page.stop();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(TcpStream::connect(at).is_err());
}

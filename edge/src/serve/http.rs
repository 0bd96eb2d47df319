//! The page's addresses.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Form, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::health::Verdict;
use crate::types::IdentityId;

use super::access::Access;
use super::control::{Answer, Command, Control};
use super::hub::{Hub, Shot};
use super::paint;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const LOGIN: &str = include_str!("login.html");

/// Longest wait for the next picture or event.
const WAIT: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct App {
    hub: Hub,
    access: Arc<Access>,
    control: Option<Control>,
}

pub(super) fn router(hub: Hub, access: Arc<Access>, control: Option<Control>) -> Router {
    let app = App {
        hub,
        access,
        control,
    };
    Router::new()
        .route(
            "/",
            get(|| async { text("text/html; charset=utf-8", PAGE) }),
        )
        .route(
            "/page.css",
            get(|| async { text("text/css; charset=utf-8", STYLE) }),
        )
        .route(
            "/page.js",
            get(|| async { text("text/javascript; charset=utf-8", SCRIPT) }),
        )
        .route("/login", get(login_page).post(login))
        .route("/api/state", get(state))
        .route("/api/events", get(events))
        .route("/camera/{file}", get(camera))
        .route("/crop/{file}", get(crop))
        .route("/metrics", get(metrics))
        .route("/api/cameras", get(cameras).post(put_camera))
        .route("/api/cameras/{name}", delete(remove_camera))
        .route("/api/reload", post(reload))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Lets pass who may, and says to the browser what the page may do: nothing but talk to this server.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let open = matches!(path, "/login" | "/page.css" | "/healthz" | "/readyz");
    let mut response = if open || app.access.allows(request.headers()) {
        next.run(request).await
    } else if app.access.guarded() && path == "/" {
        Redirect::to("/login").into_response()
    } else if app.access.guarded() {
        let bearer = [(header::WWW_AUTHENTICATE, "Bearer")];
        (StatusCode::UNAUTHORIZED, bearer, "a token is needed\n").into_response()
    } else {
        (
            StatusCode::FORBIDDEN,
            "open this page as 127.0.0.1 or localhost\n",
        )
            .into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn text(kind: &'static str, body: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

async fn login_page() -> Response {
    text("text/html; charset=utf-8", LOGIN)
}

#[derive(Deserialize)]
struct LoginForm {
    token: String,
}

async fn login(State(app): State<App>, Form(form): Form<LoginForm>) -> Response {
    let Some(cookie) = app.access.login(&form.token) else {
        // Guessing is slow.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let refused = text("text/html; charset=utf-8", LOGIN);
        return (StatusCode::UNAUTHORIZED, refused).into_response();
    };
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

async fn state(State(app): State<App>) -> Response {
    Json(app.hub.snapshot()).into_response()
}

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
    #[serde(default)]
    overlay: u8,
}

/// Server-sent events, one batch per answer: it is held until there is news, then closed, and the browser asks again
/// with `Last-Event-ID`. So nothing is lost over a lost connection, and a visitor who left costs nothing.
async fn events(
    State(app): State<App>,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Response {
    let last = headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .or(query.after);
    let mut news = app.hub.new_events();
    let after = last.unwrap_or_else(|| *news.borrow());
    let found = |hub: &Hub| {
        let (number, batch) = hub.events_after(after);
        (!batch.is_empty()).then_some((number, batch))
    };
    let mut batch = found(&app.hub);
    if batch.is_none() {
        // Time running out is an answer too: an empty batch.
        let _ = tokio::time::timeout(WAIT, async {
            while batch.is_none() && news.changed().await.is_ok() {
                batch = found(&app.hub);
            }
        })
        .await;
    }
    let (number, lines) = batch.unwrap_or((after, Vec::new()));
    let mut body = String::from("retry: 100\n");
    for line in lines {
        body.push_str(&format!("id: {number}\ndata: {line}\n\n"));
    }
    if body.len() < 16 {
        // A first visit without news still learns where it stands.
        body.push_str(&format!("id: {number}\n: nothing new\n\n"));
    }
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// `/camera/0.jpg`: the newest picture, with its boxes in the header `x-boxes`. `?after=N` waits for one newer than
/// picture N; `?overlay=1` draws the boxes into it.
async fn camera(
    State(app): State<App>,
    Path(file): Path<String>,
    Query(query): Query<After>,
) -> Response {
    let index = file.strip_suffix(".jpg").and_then(|n| n.parse().ok());
    let Some(index) = index.filter(|i| app.hub.has_camera(*i)) else {
        return (StatusCode::NOT_FOUND, "no such camera\n").into_response();
    };
    let mut news = app.hub.new_frames();
    let newer = |hub: &Hub| {
        hub.shot(index)
            .filter(|s| query.after.is_none_or(|n| s.sequence != n))
    };
    let mut shot = newer(&app.hub);
    if shot.is_none() && query.after.is_some() {
        let _ = tokio::time::timeout(WAIT.min(Duration::from_secs(2)), async {
            while shot.is_none() && news.changed().await.is_ok() {
                shot = newer(&app.hub);
            }
        })
        .await;
    }
    let Some(shot) = shot else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let labels = app.hub.labels(&shot.view);
    let boxes = serde_json::to_string(&labels).unwrap_or_else(|_| "[]".into());
    let (sequence, time) = (shot.sequence, shot.view.time);
    let overlay = query.overlay != 0;
    // Compressing takes milliseconds: not on the thread that answers.
    let encoded = tokio::task::spawn_blocking(move || {
        if !overlay {
            return compressed(&shot);
        }
        let mut picture = shot.view.picture.to_rgb();
        for label in &labels {
            let [left, top, right, bottom] = label.ltrb;
            let ltrb = crate::types::Ltrb {
                left,
                top,
                right,
                bottom,
            };
            let colour = label.hue.map_or(paint::NOBODY, paint::colour);
            paint::draw_box(
                &mut picture,
                &ltrb,
                label.name.as_deref().unwrap_or("?"),
                colour,
            );
        }
        paint::jpeg(&picture).ok().map(Arc::new)
    })
    .await;
    let Ok(Some(bytes)) = encoded else {
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the picture cannot be compressed\n",
        )
            .into_response();
    };
    Response::builder()
        .header(header::CONTENT_TYPE, "image/jpeg")
        .header("x-sequence", sequence)
        .header("x-time", time.to_string())
        .header("x-boxes", boxes)
        .body(Body::from(bytes.as_ref().clone()))
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Each picture is compressed once, however many look.
fn compressed(shot: &Shot) -> Option<Arc<Vec<u8>>> {
    let mut cached = shot.jpeg.lock().unwrap_or_else(PoisonError::into_inner);
    if cached.is_none() {
        *cached = paint::jpeg(&shot.view.picture.to_rgb()).ok().map(Arc::new);
    }
    cached.clone()
}

#[derive(Deserialize)]
struct InCamera {
    camera: Option<usize>,
}

/// `/crop/{identity}.jpg`: the latest good crop of an identity, `?camera=N` in that camera.
async fn crop(
    State(app): State<App>,
    Path(file): Path<String>,
    Query(query): Query<InCamera>,
) -> Response {
    let identity = file
        .strip_suffix(".jpg")
        .and_then(|id| uuid::Uuid::parse_str(id).ok())
        .map(IdentityId);
    match identity.and_then(|id| app.hub.crop(id, query.camera)) {
        Some(jpeg) => ([(header::CONTENT_TYPE, "image/jpeg")], jpeg.to_vec()).into_response(),
        None => (StatusCode::NOT_FOUND, "no crop of this identity\n").into_response(),
    }
}

/// Whether the program does its work: 503 if not. Who may see the page sees what is wrong, others only that something is.
async fn healthz(State(app): State<App>, headers: HeaderMap) -> Response {
    let health = app.hub.health();
    let status = match health.status {
        Verdict::Failing => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    if app.access.allows(&headers) {
        return (status, Json(health)).into_response();
    }
    (status, Json(json!({"status": health.status}))).into_response()
}

/// Whether models are open and a camera has shown a frame: 503 until then.
async fn readyz(State(app): State<App>) -> Response {
    let ready = app.hub.health().ready;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"ready": ready}))).into_response()
}

async fn cameras(State(app): State<App>) -> Response {
    ask(&app, Command::List).await
}

/// A page elsewhere can make a visitor's browser send a form here, but not JSON: a browser asks first, and is refused.
async fn put_camera(State(app): State<App>, Json(camera): Json<serde_json::Value>) -> Response {
    ask(&app, Command::Put(camera)).await
}

async fn remove_camera(State(app): State<App>, Path(name): Path<String>) -> Response {
    ask(&app, Command::Remove(name)).await
}

async fn reload(State(app): State<App>, Json(_): Json<serde_json::Value>) -> Response {
    ask(&app, Command::Reload).await
}

async fn ask(app: &App, command: Command) -> Response {
    let Some(control) = app.control.clone() else {
        let refused = json!({"error": "cameras cannot be changed here: serve.control is false, or this is a replay"});
        return (StatusCode::FORBIDDEN, Json(refused)).into_response();
    };
    // The answer comes between two frames.
    let answer = tokio::task::spawn_blocking(move || control.ask(command)).await;
    match answer.unwrap_or(Answer::Busy) {
        Answer::Done(value) => Json(value).into_response(),
        Answer::Refused(reason) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            Json(json!({"error": reason})),
        )
            .into_response(),
        Answer::Unknown(name) => {
            let error = json!({"error": format!("there is no camera {name:?}")});
            (StatusCode::NOT_FOUND, Json(error)).into_response()
        }
        Answer::Busy => {
            let error = json!({"error": "the pipeline does not answer; try again"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response()
        }
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.hub.metrics_text()).into_response()
}

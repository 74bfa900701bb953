use std::ffi::OsString;

use h2::server::handshake;
use http::Response;
use lifecycle::Health;
use process::Ask;
use settings::load;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::Config;

const ID: ObjectId = ObjectId(7);

async fn client(concurrency: usize) -> (LookUpClient, TcpListener) {
    client_speaking("auto", concurrency).await
}

async fn client_speaking(version: &str, concurrency: usize) -> (LookUpClient, TcpListener) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--client-url=http://{}", listener.local_addr().unwrap());
    let version = format!("--client-http-version={version}");
    let arguments = ["fetcher", &url, &version].map(OsString::from);
    let config = load::<Config, Ask>("fetcher", "", arguments, []).unwrap();
    let client = ClientService::new(&config.settings).unwrap();
    let service = Health::default().awaited("client service");
    let breaker = Breaker::new(concurrency, config.settings.fetch_timeout, service);
    (LookUpClient::new(client, Arc::new(breaker)), listener)
}

/// Waits for a look-up to arrive on a new connection.
async fn asked(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    until_asked(&mut stream).await;
    stream
}

async fn until_asked(stream: &mut TcpStream) {
    assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
}

async fn answer(stream: &mut TcpStream, id: ObjectId) {
    let body = format!(r#"{{"id":{id},"online":true}}"#);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
}

fn is_online(result: &LookUpResult, id: ObjectId) -> bool {
    matches!(result, Ok(Answer::Online(object)) if object.id == id)
}

#[tokio::test]
async fn who_asks_before_the_look_up_is_sent_has_its_answer() {
    let (client, listener) = client(1).await;
    let traces = TraceSet::default();
    let before = client.look_up(ObjectId(1), &traces);
    let (one, other) = (client.look_up(ID, &traces), client.look_up(ID, &traces));
    let service = async {
        let mut stream = asked(&listener).await;
        answer(&mut stream, ObjectId(1)).await;
        until_asked(&mut stream).await;
        answer(&mut stream, ID).await;
        assert!(listener.accept().now_or_never().is_none());
        stream
    };
    let (before, one, other, _) = tokio::join!(before, one, other, service);
    assert!(is_online(&before, ObjectId(1)));
    assert!([one, other].iter().all(|result| is_online(result, ID)));
    assert!(client.single_flight.is_empty());
}

#[tokio::test]
async fn those_who_come_during_a_look_up_share_one_more() {
    let (client, listener) = client(8).await;
    let traces = TraceSet::default();
    let mut first = Box::pin(client.look_up(ID, &traces));
    let mut stream = tokio::select! {
        _ = &mut first => panic!("nothing was answered"),
        stream = asked(&listener) => stream,
    };
    let late = [(); 3].map(|()| client.look_up(ID, &traces));
    let service = async {
        answer(&mut stream, ID).await;
        until_asked(&mut stream).await;
        answer(&mut stream, ID).await;
        assert!(listener.accept().now_or_never().is_none());
        assert_eq!(stream.read(&mut [0; 1]).now_or_never().map(drop), None);
        stream
    };
    let (late, first, _) = tokio::join!(futures::future::join_all(late), first, service);
    assert_eq!(late.len(), 3);
    assert!(late.iter().all(|result| is_online(result, ID)));
    assert!(is_online(&first, ID));
    assert!(client.single_flight.is_empty());
}

#[tokio::test]
async fn a_follower_leads_when_the_look_up_is_given_up() {
    let (client, listener) = client(8).await;
    let traces = TraceSet::default();
    let mut first = Box::pin(client.look_up(ID, &traces));
    let mut given_up = tokio::select! {
        _ = &mut first => panic!("nothing was answered"),
        stream = asked(&listener) => stream,
    };
    let others = [(); 2].map(|()| client.look_up(ID, &traces));
    let service = async {
        drop(first);
        assert_eq!(given_up.read(&mut [0; 1]).await.unwrap(), 0);
        answer(&mut asked(&listener).await, ID).await;
    };
    let (others, ()) = tokio::join!(futures::future::join_all(others), service);
    assert_eq!(others.len(), 2);
    assert!(others.iter().all(|result| is_online(result, ID)));
    assert!(client.single_flight.is_empty());
}

#[tokio::test]
async fn what_is_refused_unread_over_http_2_is_sent_again() {
    let (client, listener) = client_speaking("2", 1).await;
    let service = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut refusing = handshake(stream).await.unwrap();
        let (_, mut respond) = refusing.accept().await.unwrap().unwrap();
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        let answer = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut answering = handshake(stream).await.unwrap();
            let (_, mut respond) = answering.accept().await.unwrap().unwrap();
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            let online = format!(r#"{{"id":{ID},"online":true}}"#);
            body.send_data(online.into(), true).unwrap();
            answering.accept().await
        };
        tokio::join!(refusing.accept(), answer)
    };
    let traces = TraceSet::default();
    let result = tokio::select! {
        result = client.look_up(ID, &traces) => result,
        _ = service => panic!("the connections were closed"),
    };
    assert!(is_online(&result, ID));
}

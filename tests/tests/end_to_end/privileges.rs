//! Least privilege: with the users and roles that are shipped every process does its work, and nothing else is let
//! through.

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ErrorKind};
use serde_json::Value;
use tests::client::{ClientService, Reply, post_ids};
use tests::processes::output;
use tests::servers::Servers;
use tests::servers::broker::connect;
use tests::servers::database;
use tests::world::World;
use tokio_postgres::error::SqlState;

const DEFINITIONS: &str = include_str!("../../../deploy/rabbitmq/definitions.json");
const ROLES: &str = include_str!("../../../deploy/postgres/roles.sql");
const PASSWORD: &str = "password";

/// Everything that somebody could try at the broker.
const VERBS: [&str; 10] = [
    "declare a queue",
    "delete a queue",
    "delete the exchange",
    "bind a queue",
    "publish to objects",
    "publish to a queue",
    "get from objects.fetch",
    "get from objects.fetch.bulk",
    "get from objects.delete",
    "get from objects.dead",
];

/// The user's part of the pipeline, with the names of a test.
pub(crate) struct Users {
    name: String,
    amqp_url: String,
    database_url: String,
}

/// Has the broker carry out an operator's command.
pub(crate) async fn rabbitmqctl(words: &[&str]) {
    let words = [&["rabbitmqctl"], words].concat();
    let broker = &Servers::shared().unwrap().broker;
    broker.command(&words).await.unwrap();
}

impl Users {
    /// Makes the users and the roles. Their names begin with that of the test's database.
    pub(crate) async fn create(world: &World) -> Self {
        let (_, name) = world.database.url.rsplit_once('/').unwrap();
        let users = Self {
            name: name.to_owned(),
            amqp_url: world.amqp_url.clone(),
            database_url: world.database.url.clone(),
        };
        let mut definitions: Value = serde_json::from_str(DEFINITIONS).unwrap();
        for user in definitions["users"].as_array_mut().unwrap() {
            user["name"] = users.broker_user(user["name"].as_str().unwrap()).into();
            assert_eq!(user["password_hash"], "", "nobody can log in as shipped");
            user.as_object_mut().unwrap().remove("password_hash");
            user["password"] = PASSWORD.into();
        }
        for permission in definitions["permissions"].as_array_mut().unwrap() {
            permission["user"] = users
                .broker_user(permission["user"].as_str().unwrap())
                .into();
            for verb in ["configure", "write", "read"] {
                let pattern = permission[verb].as_str().unwrap();
                let own = format!("{}objects", world.prefix().replace('.', "\\."));
                permission[verb] = pattern.replace("objects", &own).into();
            }
        }
        let import = format!(
            "ok = rabbit_definitions:import_raw(<<{}>>).",
            Value::from(definitions.to_string())
        );
        rabbitmqctl(&["eval", &import]).await;

        let mut roles = ROLES.replace(" login;", &format!(" login password '{PASSWORD}';"));
        for role in ["pipeline_owner", "fetcher", "janitor", "reader"] {
            roles = roles.replace(role, &users.role(role));
        }
        world.database.client.batch_execute(&roles).await.unwrap();
        users
    }

    /// The broker's name of a user.
    pub(crate) fn broker_user(&self, user: &str) -> String {
        format!("{}-{user}", self.name)
    }

    fn role(&self, role: &str) -> String {
        format!("{}_{role}", self.name)
    }

    pub(crate) fn amqp_url(&self, user: &str) -> String {
        let (_, place) = self.amqp_url.rsplit_once('@').unwrap();
        format!("amqp://{}:{PASSWORD}@{place}", self.broker_user(user))
    }

    fn database_url(&self, role: &str) -> String {
        let (_, place) = self.database_url.rsplit_once('@').unwrap();
        format!("postgres://{}:{PASSWORD}@{place}", self.role(role))
    }

    fn flags(&self, user: &str) -> [String; 2] {
        [
            format!("--amqp-url={}", self.amqp_url(user)),
            format!("--database-url={}", self.database_url(user)),
        ]
    }

    /// Runs `setup`, and returns its exit code and what it says.
    async fn set_up(&self, world: &World, role: &str) -> (Option<i32>, String) {
        let flags = vec![
            format!("--amqp-url={}", self.amqp_url("setup")),
            format!("--database-url={}", self.database_url(role)),
            format!("--queue-prefix={}", world.prefix()),
            "--object-ttl=1s".to_owned(),
            format!("--fetcher-role={}", self.role("fetcher")),
            format!("--janitor-role={}", self.role("janitor")),
            format!("--reader-role={}", self.role("reader")),
        ];
        let ended = output("setup", &flags, &[]).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code(), said)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_works_with_its_own_rights_once_setup_has_run() {
    let world = &mut World::new().await;
    let users = Users::create(world).await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let [amqp, _] = users.flags("ingest");
    let (ingest, place) = world.start_ingest(&[&amqp]).await;
    let missing = "the user may not declare it; it is declared by setup";
    world.running(place).until_down("broker", missing).await;

    for _ in 0..2 {
        let (code, said) = users.set_up(world, "pipeline_owner").await;
        assert_eq!(code, Some(0), "{said}");
    }
    world.running(place).ready().await;
    let [amqp, database] = users.flags("janitor");
    world.janitor(&[&amqp, &database]).await;
    let [amqp, database] = users.flags("fetcher");
    world
        .fetcher(&client, &[&amqp, &database, "--object-ttl=1s"])
        .await;
    world.database.record_deletions().await;
    post_ids(ingest, &[1, 2]).await;
    let gone = "select count(*) from deletions where late >= 0";
    tests::wait::eventually("the rows to come and go", async || {
        (world.database.number(gone).await == 2).then_some(())
    })
    .await;
    let [amqp, _] = users.flags("dead-letters");
    let arguments = [
        amqp,
        format!("--queue-prefix={}", world.prefix()),
        "list".to_owned(),
    ];
    let listed = output("dead-letters", &arguments, &[]).await;
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_of_the_broker_may_do_its_work_and_nothing_else() {
    let world = &mut World::new().await;
    let users = Users::create(world).await;
    let (code, said) = users.set_up(world, "pipeline_owner").await;
    assert_eq!(code, Some(0), "{said}");
    let publishes = "publish to objects";
    let allowed: [(&str, &[&str]); 5] = [
        ("ingest", &[publishes]),
        (
            "fetcher",
            &[
                publishes,
                "get from objects.fetch",
                "get from objects.fetch.bulk",
            ],
        ),
        ("janitor", &[publishes, "get from objects.delete"]),
        ("dead-letters", &[publishes, "get from objects.dead"]),
        ("monitoring", &[]),
    ];
    for (user, allowed) in allowed {
        let connection = connect(&users.amqp_url(user)).await.unwrap();
        for verb in VERBS {
            let is_let = is_let(&connection, world, verb).await;
            assert_eq!(is_let, allowed.contains(&verb), "{user}: {verb}");
        }
    }
}

/// Whether the broker lets a user do it.
async fn is_let(connection: &Connection, world: &World, verb: &str) -> bool {
    let channel = connection.create_channel().await.unwrap();
    match attempt(&channel, &world.prefix(), verb).await {
        Ok(()) => true,
        Err(error) => {
            let refused = AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED);
            let is_refused = matches!(error.kind(),
                ErrorKind::ProtocolError(error) if *error.kind() == refused);
            assert!(is_refused, "{verb}: {error}");
            false
        }
    }
}

async fn attempt(channel: &Channel, prefix: &str, verb: &str) -> lapin::Result<()> {
    let name = |own: &str| format!("{prefix}{own}").into();
    let none = FieldTable::default();
    match verb {
        "declare a queue" => {
            let durable = QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            let declaring = channel.queue_declare(name("objects.mine"), durable, none);
            declaring.await.map(drop)
        }
        "delete a queue" => {
            let deleting =
                channel.queue_delete(name("objects.dead"), QueueDeleteOptions::default());
            deleting.await.map(drop)
        }
        "delete the exchange" => {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(name("objects"), options).await
        }
        "bind a queue" => {
            let (queue, exchange) = (name("objects.dead"), name("objects"));
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue, exchange, "mine".into(), options, none)
                .await
        }
        "publish to objects" => publish(channel, &format!("{prefix}objects"), "nowhere").await,
        "publish to a queue" => publish(channel, "", &format!("{prefix}objects.dead")).await,
        get => {
            let queue = get.strip_prefix("get from ").unwrap();
            let getting = channel.basic_get(name(queue), BasicGetOptions::default());
            getting.await.map(drop)
        }
    }
}

async fn publish(channel: &Channel, exchange: &str, key: &str) -> lapin::Result<()> {
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await?;
    let confirm = channel
        .basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions::default(),
            b"",
            BasicProperties::default(),
        )
        .await?;
    confirm.await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_of_the_database_may_do_its_work_and_nothing_else() {
    let world = &mut World::new().await;
    let users = Users::create(world).await;
    let (code, said) = users.set_up(world, "pipeline_owner").await;
    assert_eq!(code, Some(0), "{said}");
    let row = "values (7, now(), now() + interval '1 s')";
    let insert = format!("insert into objects {row}");
    let statements = [
        "select id from objects",
        &insert,
        "update objects set last_seen = last_seen",
        "delete from objects",
        "select id from live_objects",
        "select version from objects_schema",
        "truncate objects",
        "insert into objects_schema (version) values (99)",
        "create table mine ()",
        "alter table objects add column mine int",
        "drop table objects cascade",
    ];
    let allowed: [(&str, &[usize]); 3] = [
        ("fetcher", &[0, 1, 2, 5]),
        ("janitor", &[0, 2, 3, 5]),
        ("reader", &[4, 5]),
    ];
    for (role, allowed) in allowed {
        let mut client = database::connect(&users.database_url(role)).await.unwrap();
        for (place, statement) in statements.iter().enumerate() {
            let transaction = client.transaction().await.unwrap();
            let done = transaction.batch_execute(statement).await;
            let is_refused = done.as_ref().is_err_and(|error| {
                assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
                true
            });
            assert_eq!(!is_refused, allowed.contains(&place), "{role}: {statement}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_says_what_it_may_not_do() {
    let world = &mut World::new().await;
    let users = Users::create(world).await;
    let (code, said) = users.set_up(world, "fetcher").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("may not lay it"), "{said}");

    let (code, said) = users.set_up(world, "pipeline_owner").await;
    assert_eq!(code, Some(0), "{said}");
    let flags = [
        format!("--amqp-url={}", users.amqp_url("ingest")),
        format!("--database-url={}", users.database_url("pipeline_owner")),
        format!("--queue-prefix={}", world.prefix()),
    ];
    let ended = output("setup", &flags, &[]).await;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("ACCESS_REFUSED"), "{said}");

    let nobody = [
        format!("--database-url={}", users.database_url("pipeline_owner")),
        "--reader-role=nobody at all".to_owned(),
    ];
    let ended = output("setup", &nobody, &[]).await;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains("granting nobody at all its rights failed"),
        "{said}"
    );
}

"""PostgreSQL and Redis, started by Testcontainers, answer queries."""

import sqlalchemy
from testcontainers.postgres import PostgresContainer
from testcontainers.redis import RedisContainer

with PostgresContainer("postgres:15", username="ann", password="s3cret", dbname="shop") as postgres:
    engine = sqlalchemy.create_engine(postgres.get_connection_url())
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table items (name text, amount int)"))
        connection.execute(sqlalchemy.text("insert into items values ('apple', 3), ('pear', 4)"))
        total = connection.execute(sqlalchemy.text("select sum(amount) from items")).scalar()
        who = connection.execute(sqlalchemy.text("select current_user || '@' || current_database()")).scalar()
    assert (total, who) == (7, "ann@shop"), (total, who)
    print(f"testcontainers: {postgres.get_connection_url(driver=None)} answers")

with RedisContainer("redis:7", password="s3cret") as redis:
    client = redis.get_client(decode_responses=True)
    client.rpush("list", *range(1000))
    assert client.llen("list") == 1000
    assert client.config_get("requirepass")["requirepass"] == "s3cret"
    print("testcontainers: redis answers")

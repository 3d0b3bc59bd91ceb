// Every operation, called with openapi-fetch by the types that openapi-typescript makes of
// /openapi.json, which test_typescript_client.py writes beside this file as api.ts.

import assert from "node:assert/strict";

import createClient from "openapi-fetch";

import type { components, operations, paths } from "./api.js";

type Schemas = components["schemas"];

const client = createClient<paths>({ baseUrl: process.env["WEB_URL"] ?? "" });
const prepared: { failed: string; completed: string; processing: string } = JSON.parse(
  process.env["PREPARED"] ?? "",
);
const later: Schemas["NewEvent"] = {
  type: "simulate",
  payload: { result: { hello: "world" } },
  priority: "high",
  delay_ms: 60_000,
};
const tooFew: Schemas["BatchItem"] = { type: "simulate", payload: {}, max_attempts: 0 };

/** What an operation answered that went well. */
function good<T>(answer: { data?: T; error?: unknown; response: Response }, status = 200): T {
  assert.equal(answer.response.status, status, JSON.stringify(answer.error));
  assert(answer.data !== undefined);
  return answer.data;
}

/** The problem that an operation answered. */
function problem(
  answer: { error?: Schemas["Problem"]; response: Response },
  status: number,
): Schemas["Problem"] {
  assert(answer.error !== undefined);
  assert.equal(answer.response.status, status, JSON.stringify(answer.error));
  assert.equal(answer.error.status, status);
  assert.equal(answer.error.request_id, answer.response.headers.get("X-Request-Id"));
  return answer.error;
}

function at(eventId: string) {
  return { params: { path: { event_id: eventId } } };
}

const nightly: Schemas["NewSchedule"] = {
  cron: "0 3 * * *",
  timezone: "Europe/Berlin",
  event: { type: "simulate", payload: {} },
};

function named(name: string) {
  return { params: { path: { name } } };
}

async function scheduled(name: string): Promise<Schemas["Schedule"]> {
  return good(await client.PUT("/schedules/{name}", { ...named(name), body: nightly }), 201);
}

async function posted(): Promise<string> {
  return good(await client.POST("/events", { body: later }), 202).id;
}

// A key for each operation: one that is missing is an error of types.
const uses: Record<keyof operations, () => Promise<void>> = {
  async postEvent() {
    const keyed = { body: later, params: { header: { "Idempotency-Key": "typescript-1" } } };
    const first = good(await client.POST("/events", keyed), 202);
    assert.equal(first.status satisfies Schemas["EventStatus"], "pending");
    assert.equal(first.links.self, `/events/${first.id}`);
    const again = await client.POST("/events", keyed);
    assert.deepEqual(good(again, 202), first);
    assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");
    const other = { ...keyed, body: { ...later, delay_ms: 1 } };
    problem(await client.POST("/events", other), 422);
    // @ts-expect-error: there is no such priority
    const bad: Schemas["NewEvent"] = { ...later, priority: "urgent" };
    const refused = problem(await client.POST("/events", { body: bad }), 422);
    assert.deepEqual(refused.errors?.map((error) => error.pointer), ["/priority"]);
    const notJson = { body: later, bodySerializer: () => "{" };
    problem(await client.POST("/events", notJson), 400);
  },

  async postEvents() {
    const item: Schemas["BatchItem"] = { ...later, idempotency_key: "typescript-2" };
    const all = good(await client.POST("/events/batch", { body: { events: [item] } }), 202);
    const [stored] = all.results;
    assert(stored !== undefined && "id" in stored);
    const both = { body: { events: [item, tooFew] } };
    const [known, refused] = good(await client.POST("/events/batch", both), 207).results;
    assert(known !== undefined && "id" in known);
    assert.deepEqual([known.id, known.replayed], [stored.id, true]);
    assert(refused !== undefined && "error" in refused);
    assert.equal(refused.error.errors?.[0]?.pointer, "/max_attempts");
    problem(await client.POST("/events/batch", { body: { events: [] } }), 422);
  },

  async listEvents() {
    const ids = [await posted(), await posted(), await posted()].reverse();
    const query = { status: "pending", type: "simulate", limit: 2 } as const;
    const first = good(await client.GET("/events", { params: { query } }));
    assert.deepEqual(first.events.map((event) => event.id), ids.slice(0, 2));
    assert(first.next_cursor !== null);
    const next = { params: { query: { ...query, cursor: first.next_cursor } } };
    assert.equal(good(await client.GET("/events", next)).events[0]?.id, ids[2]);
    problem(await client.GET("/events", { params: { query: { cursor: "none" } } }), 400);
  },

  async getEvent() {
    const eventId = await posted();
    const looked = await client.GET("/events/{event_id}", at(eventId));
    const event = good(looked);
    assert.deepEqual(event.payload["result"], { hello: "world" });
    assert.deepEqual([event.started_at, event.error, event.history], [null, null, []]);
    const tag = looked.response.headers.get("ETag") ?? "";
    const same = { params: { ...at(eventId).params, header: { "If-None-Match": tag } } };
    assert.equal((await client.GET("/events/{event_id}", same)).response.status, 304);

    const failed = good(await client.GET("/events/{event_id}", at(prepared.failed)));
    assert.equal(failed.error?.reason satisfies Schemas["FailureReason"] | undefined, "rejected");
    assert.equal(failed.history[0]?.error?.message, "no");
    problem(await client.GET("/events/{event_id}", at("none")), 400);
    const unknown = eventId.slice(0, -12) + "0".repeat(12);
    problem(await client.GET("/events/{event_id}", at(unknown)), 404);
  },

  async cancelEvent() {
    const waiting = at(await posted());
    const cancelled = good(await client.POST("/events/{event_id}/cancel", waiting));
    assert.equal(cancelled.status, "cancelled");
    const asked = await client.POST("/events/{event_id}/cancel", at(prepared.processing));
    assert.equal(good(asked, 202).status, "processing");
    problem(await client.POST("/events/{event_id}/cancel", at(prepared.completed)), 409);
  },

  async retryEvent() {
    const again = await client.POST("/events/{event_id}/retry", at(prepared.failed));
    assert.equal(good(again, 202).status, "pending");
    problem(await client.POST("/events/{event_id}/retry", at(prepared.completed)), 409);
  },

  async retryEvents() {
    const eventId = await posted();
    good(await client.POST("/events/{event_id}/cancel", at(eventId)));
    const { created_at } = good(await client.GET("/events/{event_id}", at(eventId)));
    const body: Schemas["RetryMany"] = { status: "cancelled", created_after: created_at };
    const counted = await client.POST("/events/retry", { body: { ...body, dry_run: true } });
    assert.deepEqual(good(counted), { matched: 1, retried: 0 });
    const done = good(await client.POST("/events/retry", { body }));
    assert.deepEqual([done.matched, done.retried], [1, 1]);
    // @ts-expect-error: what is pending needs no retry
    const bad: Schemas["RetryMany"] = { status: "pending" };
    problem(await client.POST("/events/retry", { body: bad }), 422);
  },

  async cancelEvents() {
    const eventId = await posted();
    const { created_at } = good(await client.GET("/events/{event_id}", at(eventId)));
    const body: Schemas["CancelMany"] = { status: "pending", created_after: created_at };
    const counted = await client.POST("/events/cancel", { body: { ...body, dry_run: true } });
    assert.deepEqual(good(counted), { matched: 1, cancelled: 0, asked: 0 });
    const done = good(await client.POST("/events/cancel", { body }));
    assert.deepEqual([done.matched, done.cancelled, done.asked], [1, 1, 0]);
    // @ts-expect-error: what has failed can't be cancelled
    const bad: Schemas["CancelMany"] = { status: "failed" };
    problem(await client.POST("/events/cancel", { body: bad }), 422);
  },

  async putSchedule() {
    const made = await scheduled("typescript-1");
    assert.deepEqual([made.name, made.paused, made.every_seconds], ["typescript-1", false, null]);
    const body: Schemas["NewSchedule"] = { ...nightly, overlap: "skip" };
    const changed = await client.PUT("/schedules/{name}", { ...named("typescript-1"), body });
    assert.equal(good(changed).overlap satisfies Schemas["ScheduleOverlap"], "skip");
    const both = { ...named("typescript-1"), body: { ...nightly, every_seconds: 60 } };
    problem(await client.PUT("/schedules/{name}", both), 422);
  },

  async getSchedule() {
    const made = await scheduled("typescript-2");
    const looked = await client.GET("/schedules/{name}", named("typescript-2"));
    assert.deepEqual(good(looked), made);
    assert.equal(made.upcoming[0], made.next_run_at);
    problem(await client.GET("/schedules/{name}", named("missing")), 404);
  },

  async listSchedules() {
    await scheduled("typescript-3");
    const page = good(await client.GET("/schedules", { params: { query: { limit: 1 } } }));
    assert.equal(page.schedules.length, 1);
    problem(await client.GET("/schedules", { params: { query: { limit: 0 } } }), 400);
  },

  async deleteSchedule() {
    await scheduled("typescript-4");
    const removed = await client.DELETE("/schedules/{name}", named("typescript-4"));
    assert.equal(removed.response.status, 204);
    problem(await client.DELETE("/schedules/{name}", named("typescript-4")), 404);
  },

  async runSchedule() {
    await scheduled("typescript-5");
    const ran = good(await client.POST("/schedules/{name}/run", named("typescript-5")), 202);
    assert.equal(ran.schedule, "typescript-5");
    const query = { schedule: "typescript-5" };
    const page = good(await client.GET("/events", { params: { query } }));
    assert.deepEqual(page.events.map((event) => event.id), [ran.id]);
  },

  async getHealth() {
    const health = good(await client.GET("/health"));
    assert(health.status !== "down");
    assert.equal(health.checks.mongodb.status, "ok");
    assert.equal(health.checks.workers.alive, health.checks.workers.workers.length);
  },

  async getLiveness() {
    assert.equal(good(await client.GET("/health/live")).status, "ok");
  },

  async getReadiness() {
    assert(good(await client.GET("/health/ready")).status !== "down");
  },

  async getMetrics() {
    const text: string = good(await client.GET("/metrics", { parseAs: "text" }));
    assert.match(text, /^# TYPE pulsequeue_workers_alive gauge$/m);
    const headers = { Accept: "application/json" };
    const metrics = good(await client.GET("/metrics", { headers }));
    assert(typeof metrics === "object");
    assert((metrics.received ?? -1) >= 0);
    assert.deepEqual(metrics.up, { mongodb: true, redis: true });
  },

  async getDescription() {
    assert.equal(good(await client.GET("/openapi.json"))["openapi"], "3.1.0");
  },
};

for (const [operation, use] of Object.entries(uses)) {
  await use();
  console.log(operation);
}

// One part of the workers of `keys_bullmq.py`, or what fills their queues:
//
//     keys_bullmq.mjs fill KEYS EACH               put a key's tasks into its queue, for every key
//     keys_bullmq.mjs work FROM TO MAX DURATION    work off the queues of these keys, MAX tasks of each in DURATION ms
//
// BENCH_URL is the Redis, BENCH_PACKAGES the folder with the npm packages, BENCH_RECORDS where tasks note when they ran.
import { openSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const NAP = 50;
const AT_ONCE = 10; // twice what a key may start in a second, so that only its limiter holds it

const load = createRequire(`${process.env.BENCH_PACKAGES}/package.json`);
const { Queue, Worker } = load("bullmq");
const { Redis } = load("ioredis");

const [role, ...rest] = process.argv.slice(2);
const numbers = rest.map(Number);
const connection = new Redis(process.env.BENCH_URL, { maxRetriesPerRequest: null });
connection.setMaxListeners(0); // each queue and each worker adds its own

const name = (key) => `key-${key}`;
const now = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC, as in the other languages' tasks

function payload(number) {
  return { i: number, customer: "c-1842", kind: "noop", flags: [1, 2, 3], note: "x".repeat(34 - String(number).length) };
}

async function fill(keys, each) {
  for (let key = 0; key < keys; key++) {
    const queue = new Queue(name(key), { connection });
    const jobs = Array.from({ length: each }, (_, place) => ({ name: "rest", data: payload(key * each + place) }));
    await queue.addBulk(jobs.map((job) => ({ ...job, opts: { removeOnComplete: true } })));
    await queue.close();
  }
  connection.disconnect();
}

function work(from, to, max, duration) {
  const file = openSync(`${process.env.BENCH_RECORDS}/${process.pid}`, "a");
  const task = async (job) => {
    const start = now();
    await sleep(NAP);
    const record = Buffer.alloc(24);
    record.writeBigInt64LE(BigInt(job.data.i), 0);
    record.writeDoubleLE(start, 8);
    record.writeDoubleLE(now(), 16);
    writeSync(file, record);
  };
  for (let key = from; key < to; key++) {
    new Worker(name(key), task, { connection, concurrency: AT_ONCE, limiter: { max, duration } });
  }
}

await { fill, work }[role](...numbers);

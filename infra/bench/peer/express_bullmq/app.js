// A peer: Express, BullMQ and MongoDB as one would put them together.
// `node app.js web` is its web, `node app.js worker` its worker.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Queue, Worker } from 'bullmq'
import express from 'express'
import { Redis } from 'ioredis'
import { MongoClient } from 'mongodb'

const QUEUE = 'events'
const mongo = new MongoClient(process.env.MONGODB_URI, { writeConcern: { w: 'majority', journal: true } })
const jobs = mongo.db().collection('jobs')
const connection = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null })

async function web() {
  await jobs.createIndex({ status: 1, created_at: 1 })
  const queue = new Queue(QUEUE, { connection })
  const app = express().disable('x-powered-by').use(express.json({ limit: '1mb' }))

  app.post('/events', async (req, res) => {
    const { type, payload } = req.body ?? {}
    const valid = typeof type === 'string' && type.length >= 1 && type.length <= 100 &&
      typeof payload === 'object' && payload !== null && !Array.isArray(payload)
    if (!valid) return res.status(422).json({ title: 'type must be a text, payload an object' })
    const id = randomUUID()
    await jobs.insertOne({ _id: id, type, payload, status: 'pending', attempts: 0, created_at: new Date() })
    await queue.add(type, { id }, {
      jobId: id, attempts: 5, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: true
    })
    res.status(202).json({ id, status: 'pending' })
  })
  app.get('/health', (req, res) => res.json({ status: 'ok' }))
  app.listen(Number(process.env.PORT), '127.0.0.1')
}

// Claims, waits `ms` of its payload, completes. A redelivered job is claimed again: its worker has died.
async function handle(job) {
  const id = job.data.id
  const claimed = await jobs.findOneAndUpdate(
    { _id: id, status: { $in: ['pending', 'processing'] } },
    { $set: { status: 'processing', started_at: new Date() }, $inc: { attempts: 1 } },
    { returnDocument: 'after' }
  )
  if (claimed === null) return
  if (claimed.payload.ms) await sleep(claimed.payload.ms)
  await jobs.updateOne(
    { _id: id, attempts: claimed.attempts },
    { $set: { status: 'completed', result: { ok: true }, finished_at: new Date() } }
  )
}

await mongo.connect()
if (process.argv[2] === 'web') await web()
else {
  const worker = new Worker(QUEUE, handle, { connection, concurrency: 64 })
  process.on('SIGTERM', () => worker.close().then(() => process.exit(0)))
}

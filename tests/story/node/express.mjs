// The brief's handler of a webhook, in Express as people set it up: it only has the parsed body.
import crypto from 'node:crypto'
import express from 'express'
import { Webhook } from 'standardwebhooks'
import { Webhook as Svix } from 'svix'

const webhook = { secret: process.env.SECRET }
const seen = []

function verifySignature(signature, payload, secret) {
  const expected = 'sha256=' + crypto.createHmac('sha256', secret).update(JSON.stringify(payload)).digest('hex')
  return signature === expected
}

function handleTaskUpdate(payload) {
  seen.push({ type: payload.type, id: payload.id, name: payload.data.name })
}

const app = express()
app.use(express.json())

app.post('/webhook/task-updated', (req, res) => {
  const signature = req.headers['x-taskade-signature'];
  const payload = req.body;

  // Verify webhook signature
  if (verifySignature(signature, payload, webhook.secret)) {
    // Process the task update
    handleTaskUpdate(payload);
    res.status(200).send('OK');
  } else {
    res.status(401).send('Invalid signature');
  }
});

app.get('/seen', (req, res) => res.json(seen))

// The same with the libraries of Standard Webhooks, which want the bytes.
const kept = []
const library = express()
library.post('/library', express.text({ type: '*/*' }), (req, res) => {
  const standard = process.env.STANDARD_SECRET
  for (const verifier of [new Webhook(standard), new Svix(standard)]) verifier.verify(req.body, req.headers)
  kept.push({ headers: req.headers, body: req.body })
  res.send('OK')
})
library.get('/kept', (req, res) => res.json(kept))
library.use((error, req, res, next) => res.status(401).send(error.message))

for (const one of [app, library]) {
  const server = one.listen(0, '127.0.0.1', () => console.log(server.address().port))
}

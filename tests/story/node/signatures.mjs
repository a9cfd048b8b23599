// Verifies deliveries with the two libraries that receivers use, and with a handler's ten lines.
import crypto from 'node:crypto'
import { Webhook } from 'standardwebhooks'
import { Webhook as Svix } from 'svix'

let text = ''
for await (const piece of process.stdin) text += piece

const outcomes = JSON.parse(text).map(({ secret, standard, headers, body }) => {
  const handler = () => {
    const parsed = JSON.parse(body)
    const expected = 'sha256=' + crypto.createHmac('sha256', secret).update(JSON.stringify(parsed)).digest('hex')
    if (headers['X-Taskade-Signature'] !== expected) throw new Error('not the signature')
  }
  const attempts = [() => new Webhook(standard).verify(body, headers), () => new Svix(standard).verify(body, headers), handler]
  return attempts.map((attempt) => {
    try {
      attempt()
      return 'verified'
    } catch (error) {
      return error.message
    }
  })
})
console.log(JSON.stringify(outcomes))

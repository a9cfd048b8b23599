// Two receivers, as people write them: one that has only the parsed body, and one with the library.
import crypto from 'node:crypto'
import http from 'node:http'
import { Webhook } from 'standardwebhooks'

const { SECRET, STANDARD_SECRET } = process.env
const library = new Webhook(STANDARD_SECRET)

function plain(headers, text) {
  const body = JSON.parse(text)
  const expected = 'sha256=' + crypto.createHmac('sha256', SECRET).update(JSON.stringify(body)).digest('hex')
  if (headers['x-taskade-signature'] !== expected) throw new Error('Invalid signature')
  return body
}

const server = http.createServer(async (request, response) => {
  let text = ''
  request.setEncoding('utf8')
  for await (const piece of request) text += piece
  try {
    const event = request.url === '/plain' ? plain(request.headers, text) : library.verify(text, request.headers)
    response.writeHead(200).end(`OK ${event.type}`)
  } catch (error) {
    response.writeHead(401).end(error.message)
  }
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))

// What each script says of a case: one line of JSON, for the table in docs/clients.md.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { deflateSync, crc32 } from 'node:zlib'

export const TOOL_ANSWER = 'a.txt and b.txt'
// Tokens for JSON by a grammar: models with random weights write a lot of the white space that it allows.
export const LONG = 1500

// A real picture of 64 x 48 pixels.
export function png() {
  const rows = Buffer.concat(
    Array.from({ length: 48 }, (_, y) =>
      Buffer.from([0, ...Array.from({ length: 64 }, (_, x) => [(x * 4) % 256, (y * 5) % 256, 90]).flat()]),
    ),
  )
  const part = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind), data])
    const [size, sum] = [Buffer.alloc(4), Buffer.alloc(4)]
    size.writeUInt32BE(data.length)
    sum.writeUInt32BE(crc32(body))
    return Buffer.concat([size, body, sum])
  }
  const header = Buffer.from([0, 0, 0, 64, 0, 0, 0, 48, 8, 2, 0, 0, 0])
  const head = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
  return Buffer.concat([head, part('IHDR', header), part('IDAT', deflateSync(rows)), part('IEND', Buffer.alloc(0))])
}

export function assert(condition, text = 'it is not so') {
  if (!condition) throw new Error(text)
}

// The model said nothing: one with random weights ends its answer at once, one time in 2,000.
class Empty extends Error {}
// How often a case is begun whose answer was empty; any other fault counts at once.
const TRIES = 3

// There has to be a text.
export function said(text) {
  if (!text) throw new Empty('no text came')
}

// The call is to be refused, with these words of ours in the error; the error.
export async function refused(call, words = "Did you mean 'reasoning'?") {
  try {
    await call()
  } catch (error) {
    const said = `${error.message} ${error.responseBody ?? ''} ${JSON.stringify(error.error ?? '')}`
    assert(said.includes(words), `${error.stack}`)
    return error
  }
  throw new Error('it was answered')
}

export async function run(name, cases) {
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url)
  const { version } = JSON.parse(readFileSync(fileURLToPath(file)))
  for (const [kind, work] of Object.entries(cases)) {
    let line
    for (let left = TRIES; left > 0; left -= 1) {
      line = { client: name, version, case: kind, ok: true }
      try {
        await work()
        break
      } catch (error) {
        Object.assign(line, { ok: false, why: String(error.stack).slice(-1500) })
        if (!(error instanceof Empty)) break
      }
    }
    console.log(JSON.stringify(line))
  }
}

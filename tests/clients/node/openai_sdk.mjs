// OpenAI's SDK: it reads OPENAI_BASE_URL and OPENAI_API_KEY.
import OpenAI from 'openai'
import { LONG, TOOL_ANSWER, assert, png, refused, run, said } from './cases.mjs'

const client = new OpenAI()
const messages = [{ role: 'user', content: 'Which files are there?' }]
const tool = {
  type: 'function',
  function: {
    name: 'list_files',
    description: 'The files.',
    strict: true, // then vLLM keeps the arguments to their schema
    parameters: { type: 'object', properties: {}, additionalProperties: false },
  },
}
const schema = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'], additionalProperties: false }

await run('openai', {
  async chat() {
    const answer = await client.chat.completions.create({ model: 'reasoning', messages, max_tokens: 8 })
    said(answer.choices[0].message.content)
    const response = await client.responses.create({ model: 'reasoning', input: 'Hello', max_output_tokens: 16 })
    assert(response.output.length)
  },
  async stream() {
    const pieces = await client.chat.completions.create({ model: 'reasoning', messages, max_tokens: 40, stream: true })
    let texts = 0
    for await (const piece of pieces) texts += piece.choices[0]?.delta.content ? 1 : 0
    said(texts > 1)
    const types = []
    const events = client.responses.stream({ model: 'reasoning', input: 'Hello', max_output_tokens: 16 })
    for await (const event of events) types.push(event.type)
    assert(['response.completed', 'response.incomplete'].includes(types.at(-1)), types.join())
  },
  async tools() {
    const named = { type: 'function', function: { name: 'list_files' } }
    const ask = { model: 'reasoning', tools: [tool] }
    const first = await client.chat.completions.create({ ...ask, messages, tool_choice: named, max_tokens: LONG })
    const { message } = first.choices[0]
    const [call] = message.tool_calls
    assert(typeof JSON.parse(call.function.arguments) === 'object')
    const history = [...messages, message, { role: 'tool', tool_call_id: call.id, content: TOOL_ANSWER }]
    const last = await client.chat.completions.create({ ...ask, messages: history, max_tokens: 8 })
    assert(['stop', 'length', 'tool_calls'].includes(last.choices[0].finish_reason))
  },
  async structured() {
    const response_format = { type: 'json_schema', json_schema: { name: 'light', schema, strict: true } }
    const ask = { model: 'reasoning', messages, response_format, max_tokens: LONG }
    const answer = await client.chat.completions.create(ask)
    assert(typeof JSON.parse(answer.choices[0].message.content).on === 'boolean')
  },
  async embeddings() {
    const { data } = await client.embeddings.create({ model: 'embedding', input: ['one', 'two'] })
    assert(data.length === 2 && data[0].embedding.length > 8)
  },
  async vision() {
    const url = `data:image/png;base64,${png().toString('base64')}`
    const content = [{ type: 'text', text: 'What is this?' }, { type: 'image_url', image_url: { url } }]
    const ask = { model: 'vision', messages: [{ role: 'user', content }], max_tokens: 8 }
    const answer = await client.chat.completions.create(ask)
    assert(answer.usage.prompt_tokens > 100)
  },
  async errors() {
    const error = await refused(() => client.chat.completions.create({ model: 'reasonning', messages }))
    assert(error instanceof OpenAI.BadRequestError && error.code === 'model_not_found')
    const wrong = await refused(() => new OpenAI({ apiKey: 'sk-wrong' }).models.list(), 'API key')
    assert(wrong instanceof OpenAI.AuthenticationError)
  },
})

// OpenAI's own client for Node.js: chat completions and responses, streams, tools, errors.
import OpenAI from "openai";
import { answerTokens, asked, tell } from "./asked.mjs";

const client = new OpenAI({ baseURL: asked.url, apiKey: asked.key });
const common = { model: asked.model, max_tokens: answerTokens, temperature: 0 };
const turn = {
    role: "user",
    content: [
        { type: "text", text: asked.question },
        { type: "image_url", image_url: { url: asked.image } },
    ],
};
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];

async function text(messages, more = {}) {
    const answer = await client.chat.completions.create({ ...common, messages, ...more });
    return answer.choices[0].message.content;
}

async function streamed() {
    let found = "";
    for await (const chunk of await client.chat.completions.create({ ...common, messages: [turn], stream: true }))
        found += chunk.choices[0]?.delta?.content ?? "";
    return found;
}

async function response(stream) {
    const content = [
        { type: "input_text", text: asked.question },
        { type: "input_image", image_url: asked.image, detail: "auto" },
    ];
    const body = { model: asked.model, max_output_tokens: answerTokens, temperature: 0 };
    const input = [{ role: "user", content }];
    if (!stream) return (await client.responses.create({ ...body, input })).output_text;
    let found = "";
    for await (const event of await client.responses.create({ ...body, input, stream }))
        if (event.type === "response.output_text.delta") found += event.delta;
    return found;
}

async function unknownModel() {
    try {
        await text([turn], { model: "gpt-9" });
        return [];
    } catch (error) {
        return [error.constructor.name, error.code];
    }
}

tell({
    text: await text([{ role: "user", content: "hello" }]),
    image: await text([turn]),
    stream: await streamed(),
    tools: await text([turn], { tools, tool_choice: "auto" }),
    response: await response(false),
    streamed_response: await response(true),
    unknown_model: await unknownModel(),
});

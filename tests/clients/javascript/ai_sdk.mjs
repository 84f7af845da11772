// The AI SDK: its OpenAI provider, which asks /v1/responses, and the one for compatible servers, which asks for chats.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import { answerTokens, asked, tell } from "./asked.mjs";

const options = { baseURL: asked.url, apiKey: asked.key };
const openai = createOpenAI(options);
const compatible = createOpenAICompatible({ ...options, name: "lingbi" });
const content = [
    { type: "text", text: asked.question },
    { type: "image", image: asked.image },
];
const messages = [{ role: "user", content }];
const common = { maxOutputTokens: answerTokens, temperature: 0, maxRetries: 0 };
const tools = {
    weather: tool({
        description: "The weather of a place",
        inputSchema: jsonSchema({ type: "object", properties: { place: { type: "string" } } }),
        execute: async ({ place }) => `sunny in ${place}`,
    }),
};

async function streamed(model) {
    let found = "";
    for await (const part of streamText({ ...common, model, messages }).textStream) found += part;
    return found;
}

const chat = compatible(asked.model);
const response = openai(asked.model);
tell({
    image: (await generateText({ ...common, model: chat, messages })).text,
    stream: await streamed(chat),
    tools: (await generateText({ ...common, model: chat, messages, tools })).text,
    response: (await generateText({ ...common, model: response, messages })).text,
    streamed_response: await streamed(response),
});

// The page's own part: the language, the state line, what Gradio says in English only, and the download.
// Nothing here leaves this server.
(() => {
    const SETTLE_MS = 100; // Gradio takes what came before a break in turns of its own
    const POLL_MS = { ready: 10000, lost: 2000, other: 1500, awaited: 1000, unbuilt: 200 };
    const NOTE_MS = 12000;
    const AWAITED_MS = 300000; // a question waits for its model for as long, where LINGBI_WAKE_WAIT_S is not set
    const isChinese = (navigator.languages || [navigator.language]).map((tag) => tag.toLowerCase())
        .find((tag) => tag.startsWith("zh") || tag.startsWith("en"))?.startsWith("zh") ?? false;
    document.documentElement.lang = isChinese ? "zh-CN" : "en";
    let instance = null;

    const { words, maxBytes } = window.lingbi;
    const say = (word) => (words[word] || words.state_starting)[isChinese ? 1 : 0];

    function show(phase, model, part) {
        const line = document.getElementById("state");
        const text = say(`state_${phase}`) + percent(part);
        if (line.dataset.phase !== phase) line.dataset.phase = phase;
        const words = document.getElementById("phase");
        if (words.textContent !== text) words.textContent = text;
        if (model !== undefined) showModel(model);
    }

    function showModel(model) {
        document.getElementById("model").textContent = offers.length ? "" : model;
        document.querySelectorAll("#models [data-model]").forEach((item) => {
            if (item.dataset.model === model) item.setAttribute("aria-current", "true");
            else item.removeAttribute("aria-current");
        });
    }

    // Where there are several models: which one answers, chosen by the visitor and kept by their browser.
    let offers = [];
    const KEPT = "lingbi-model";
    const kept = { get: () => { try { return localStorage.getItem(KEPT); } catch { return null; } },
        set: (name) => { try { localStorage.setItem(KEPT, name); } catch { /* a browser that keeps nothing */ } } };
    const picked = () => (offers.length ? document.getElementById("pick").value : "");

    function percent(part) {
        return part > 0 && part < 1 ? ` ${Math.round(part * 100)} %` : "";
    }

    // A model that is gone stays picked, and says so, until the visitor picks another one.
    function showOffers(found, usual) {
        const [picker, pick] = [document.getElementById("picker"), document.getElementById("pick")];
        const wanted = picked() || kept.get() || usual;
        const lost = picked() && found && !found.some((offer) => offer.id === wanted);
        offers = found || [];
        picker.hidden = !offers.length;
        if (!offers.length) return null;
        const shown = lost ? [...offers, { id: wanted, name: wanted, phase: "gone", part: 0, facts: ["", ""] }] : offers;
        const names = shown.map((offer) => offer.id);
        if (names.join("\n") !== [...pick.options].map((option) => option.value).join("\n")) {
            pick.replaceChildren(...names.map((name) => new Option(name, name)));
            pick.value = names.includes(wanted) ? wanted : usual;
        }
        shown.forEach((offer, place) => {
            const text = `${offer.name} · ${say(`state_${offer.phase}`)}${percent(offer.part)}`;
            if (pick.options[place].text !== text) pick.options[place].text = text;
        });
        pick.onchange = () => { kept.set(pick.value); showPicked(shown); };
        return showPicked(shown);
    }

    function showPicked(shown) {
        const offer = shown.find((each) => each.id === picked());
        const [facts, text] = [document.getElementById("facts"), offer.facts[isChinese ? 1 : 0]];
        if (facts.textContent !== text) facts.textContent = text;
        show(offer.phase, offer.id, offer.part);
        return offer;
    }

    // A question has a sleeping model loaded, and another one put away: whoever asked sees both as they happen.
    let [timer, awaitedUntil] = [null, 0];

    function lookSoon() {
        awaitedUntil = Date.now() + AWAITED_MS;
        if (timer) lookAfter(POLL_MS.awaited);
    }

    function lookAfter(wait) {
        clearTimeout(timer);
        timer = setTimeout(look, wait);
    }

    async function look() {
        timer = null;
        if (!document.getElementById("state")) return lookAfter(POLL_MS.unbuilt);
        let wait = POLL_MS.other;
        try {
            const answer = await fetch("state", { cache: "no-store", signal: AbortSignal.timeout(5000) });
            if (!answer.ok) throw new Error(answer.status);
            const state = await answer.json();
            // A page server that was started anew knows nothing of this page's session: begin one.
            if (instance && instance !== state.instance) return location.reload();
            instance = state.instance;
            const offer = showOffers(state.models, state.model);
            if (!offer) show(state.phase, state.model || "", state.part);
            const phase = (offer || state).phase;
            if (phase === "ready") awaitedUntil = 0;
            if (Date.now() < awaitedUntil) wait = POLL_MS.awaited;
            else if (["ready", "asleep"].includes(phase)) wait = POLL_MS.ready;
        } catch {
            show("lost");
            wait = POLL_MS.lost;
        }
        lookAfter(wait);
    }

    async function embedded(url) {
        const blob = await (await fetch(url)).blob();
        return new Promise((resolve) => {
            const reader = new FileReader();
            reader.onload = () => resolve(reader.result);
            reader.readAsDataURL(blob);
        });
    }

    async function download(turns) {
        const who = isChinese ? { user: "你", assistant: "模型" } : { user: "You", assistant: "Model" };
        const lines = [offers.length ? "# lingbi" : `# lingbi · ${document.getElementById("model").textContent}`, ""];
        for (const turn of turns) {
            lines.push(`**${who[turn.role]}**`, "");
            for (const part of turn.content) {
                if (part.type === "file") lines.push(`![](${await embedded(part.file.url)})`, "");
                else lines.push(part.text, "");
            }
        }
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/markdown" }));
        link.download = `lingbi-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.md`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }

    function tell(text) {
        const note = document.createElement("div");
        note.className = "note";
        note.setAttribute("role", "alert");
        const button = document.createElement("button");
        button.textContent = "×";
        button.setAttribute("aria-label", say("close"));
        button.onclick = () => note.remove();
        note.append(text, button);
        notes().append(note);
        setTimeout(() => note.remove(), NOTE_MS);
    }

    function notes() {
        const found = document.getElementById("notes") || document.createElement("div");
        found.id = "notes";
        if (!found.isConnected) document.body.append(found);
        return found;
    }

    // Files that are too large are named before they travel, however they came.
    function stopLarge(event) {
        const source = event.target.type === "file" ? event.target : event.clipboardData || event.dataTransfer;
        const large = [...(source?.files || [])].filter((file) => file.size > maxBytes);
        if (!large.length) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        if (event.target.type === "file") event.target.value = "";
        large.forEach((file) => tell(say("picture_large").replace("{name}", file.name)));
    }
    ["change", "paste", "drop"].forEach((kind) => window.addEventListener(kind, stopLarge, true));

    // What the gateway says to a question or an upload is a page of its own; here it becomes a sentence.
    const wordOf = (status) => ({ 401: "page_refused", 404: "page_refused", 413: "page_large", 429: "page_busy" })[status] || "page_away";
    const isAnswering = () => Boolean(document.querySelector("#question .stop-button"));
    const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));
    const isJson = (answer) => answer.headers.get("content-type")?.includes("json");
    const ask = window.fetch;

    async function sentenceOf(answer) {
        const told = answer && isJson(answer) && (await answer.json().catch(() => null))?.detail;
        return typeof told === "string" ? told : say(wordOf(answer?.status));
    }

    // Gradio takes a connection that breaks for the end of the page: it loads it anew, and the conversation is gone. So it hears
    // that the answer failed instead, and what is sent beside the queue (to stop, to begin anew) is sent until it arrives.
    function unlessAborted(fault) {
        if (fault.name === "AbortError") throw fault;
        if (timer) lookAfter(0);
        return null;
    }

    function failed(sentence, isTold = true) {
        if (isTold) tell(sentence);
        const events = [{ msg: "unexpected_error", message: sentence }, { msg: "close_stream" }];
        return new TextEncoder().encode(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(""));
    }

    async function unbroken(asked) {
        const answer = await asked.catch(unlessAborted);
        if (!answer?.ok) return new Response(failed(await sentenceOf(answer)));
        const reader = answer.body.getReader();
        return new Response(new ReadableStream({
            async pull(stream) {
                const piece = await reader.read().catch(unlessAborted);
                if (!piece) {
                    await pause(SETTLE_MS);
                    stream.enqueue(failed(say("page_broken"), isAnswering()));
                } else if (!piece.done) return stream.enqueue(piece.value);
                stream.close();
            },
            cancel: (why) => reader.cancel(why),
        }));
    }

    async function arrived(send) {
        for (;;) {
            const answer = await send().catch(unlessAborted);
            if (answer && (answer.ok || isJson(answer))) return answer;
            await pause(POLL_MS.lost);
        }
    }

    window.fetch = async (input, options) => {
        const path = new URL(input.url || input, location.href).pathname;
        if (path.endsWith("/queue/data")) return unbroken(ask(input, options));
        if (path.includes("/gradio_api/run/")) return arrived(() => ask(input, options));
        const [isQuestion, isUpload] = [path.endsWith("/queue/join"), path.endsWith("/gradio_api/upload")];
        if (!isQuestion && !isUpload) return ask(input, options);
        const answer = await ask(input, options).catch(() => null);
        if (answer && (answer.ok || (isQuestion && isJson(answer)))) return answer;
        const sentence = await sentenceOf(answer);
        if (isUpload) tell(sentence);
        return Response.json(isUpload ? [] : { error: sentence, detail: sentence }, { status: isUpload ? 200 : 500 });
    };

    // What Gradio leaves out for people who hear the page: the examples are no list, and a picture's button has no name.
    // What it says in English only: the titles of its notes. And the dialog that chooses files shows pictures first; what a file
    // is, is judged by its content.
    function name() {
        document.querySelectorAll("#question input[type=file]:not([accept='image/*'])").forEach((input) => {
            input.accept = "image/*";
        });
        document.querySelectorAll("#chat .examples[role=list]").forEach((examples) => examples.removeAttribute("role"));
        document.querySelectorAll("#chat button:not([aria-label]):has(img)").forEach((button) => {
            button.setAttribute("aria-label", say("enlarge"));
        });
        document.querySelectorAll(".toast-title").forEach((title) => { title.firstChild.data = `${say("notice")} `; });
        document.querySelectorAll(".toast-close").forEach((button) => button.setAttribute("aria-label", say("close")));
    }
    new MutationObserver(name).observe(document.documentElement, { childList: true, subtree: true });

    window.lingbi.download = download;
    window.lingbi.picked = () => { lookSoon(); return picked(); }; // every question asks for it
    look();
})();

// The page's own part: the language, the state line, and the download. Nothing here leaves this server.
(() => {
    const POLL_MS = { ready: 10000, lost: 2000, other: 1500, unbuilt: 200 };
    const isChinese = (navigator.languages || [navigator.language]).map((tag) => tag.toLowerCase())
        .find((tag) => tag.startsWith("zh") || tag.startsWith("en"))?.startsWith("zh") ?? false;
    document.documentElement.lang = isChinese ? "zh-CN" : "en";
    let instance = null;

    const say = (word) => (window.lingbiWords[word] || window.lingbiWords.state_starting)[isChinese ? 1 : 0];

    function show(phase, model, part) {
        const line = document.getElementById("state");
        const percent = part > 0 && part < 1 ? ` ${Math.round(part * 100)} %` : "";
        const text = say(`state_${phase}`) + percent;
        if (line.dataset.phase !== phase) line.dataset.phase = phase;
        const words = document.getElementById("phase");
        if (words.textContent !== text) words.textContent = text;
        if (model !== undefined) document.getElementById("model").textContent = model;
    }

    async function look() {
        if (!document.getElementById("state")) return setTimeout(look, POLL_MS.unbuilt);
        let wait = POLL_MS.other;
        try {
            const answer = await fetch("state", { cache: "no-store", signal: AbortSignal.timeout(5000) });
            if (!answer.ok) throw new Error(answer.status);
            const state = await answer.json();
            // A page server that was started anew knows nothing of this page's session: begin one.
            if (instance && instance !== state.instance) return location.reload();
            instance = state.instance;
            show(state.phase, state.model || "", state.part);
            if (state.phase === "ready") wait = POLL_MS.ready;
        } catch {
            show("lost");
            wait = POLL_MS.lost;
        }
        setTimeout(look, wait);
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
        const who = isChinese ? { user: "我", assistant: "模型" } : { user: "I", assistant: "Model" };
        const lines = [`# lingbi · ${document.getElementById("model").textContent}`, ""];
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

    // What Gradio leaves out for people who hear the page: the examples are no list, and a picture's button has no name.
    function name() {
        document.querySelectorAll("#chat .examples[role=list]").forEach((examples) => examples.removeAttribute("role"));
        document.querySelectorAll("#chat button:not([aria-label]):has(img)").forEach((button) => {
            button.setAttribute("aria-label", say("enlarge"));
        });
    }
    new MutationObserver(name).observe(document.documentElement, { childList: true, subtree: true });

    window.lingbi = { download };
    look();
})();
